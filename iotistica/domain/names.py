"""Makes names comparable and harmless: Unicode composed (NFC), without characters that hide or reverse text."""

import re
import unicodedata
from functools import lru_cache
from typing import Final

_BREAKS: Final = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@lru_cache(maxsize=8192)  # a fleet sends the same names again and again
def clean_name(text: str) -> str:
    """Return a name from outside as it is stored: composed, on one line, without invisible characters.

    Lone surrogates, which PostgreSQL cannot hold, become `?`.
    """
    if text.isascii() and text.isprintable():
        return text.strip()
    text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    return _UNSEEN.sub("", _BREAKS.sub(" ", text)).strip()


def composed(text: str) -> str:
    """Return a text in NFC, so that names look up alike however they were typed."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def compared(text: str) -> str:
    """Return an e-mail address or a password in NFKC: the same from every keyboard and system (RFC 8265)."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)
