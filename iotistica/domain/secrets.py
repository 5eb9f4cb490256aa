"""Secrets inside documents: found by where they stand, sealed at rest, masked in what people read."""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from iotistica.domain import documents
from iotistica.domain.accounts import derive
from iotistica.domain.documents import SEALED
from iotistica.domain.ids import TenantId
from iotistica.errors import Invalid

MASK: Final = "********"
"""Stands for a secret; written back where one was, it leaves that as it is."""
_NAME: Final = re.compile(
    r"pass(word|wd|phrase)?$|pwd$|secret|token$|api_?key$|private_?key|client_?key$|access_?key|credential"
    r"|^community$",
    re.I,
)
_ENVIRONMENT: Final = re.compile(r"^env(ironment)?(_?(vars?|variables))?$", re.I)
_LOGIN: Final = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_INSIDE: Final = ("connectionString",)
"""Texts that are JSON themselves, as agents echo the connections of endpoints."""

Leaf = Callable[[str, str], Any]
"""What becomes of a secret text: its path, and the text."""


class Box:
    """Seals and opens the secrets of documents; the same text of one tenant is always sealed alike."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(derive(key, "documents") + derive(key, "documents", "2"))

    def seal(self, document: Any, tenant: TenantId) -> Any:
        """The document with every secret in it sealed for the tenant; raises `Invalid` for a foreign seal."""
        return _walk(document, lambda _, text: self._seal(text, tenant), "", under=False)

    def open(self, document: Any, tenant: TenantId) -> Any:
        """The document as it was before it was sealed; what was sealed by another key becomes the mask."""
        return _unseal(document, lambda sealed: self._open(sealed, tenant))

    def seal_bytes(self, content: bytes, tenant: TenantId) -> bytes:
        """A whole document, sealed for the tenant."""
        return self._cipher.encrypt(content, [tenant.encode()])

    def open_bytes(self, sealed: bytes, tenant: TenantId) -> bytes | None:
        """What was sealed; None if it was by another key, or for another tenant."""
        try:
            return self._cipher.decrypt(sealed, [tenant.encode()])
        except InvalidTag:
            return None

    def _seal(self, text: str, tenant: TenantId) -> dict[str, str]:
        return {SEALED: b64encode(self._cipher.encrypt(text.encode(), [tenant.encode()])).decode()}

    def _open(self, sealed: str, tenant: TenantId) -> str:
        try:
            return self._cipher.decrypt(b64decode(sealed), [tenant.encode()]).decode()
        except (InvalidTag, binascii.Error, ValueError):
            return MASK


def mask(document: Any) -> Any:
    """The document, sealed or not, as people may read it who must not see its secrets."""
    return _walk(_unseal(document, lambda _: MASK), lambda _, __: MASK, "", under=False)


def keep_masked(new: Any, old: Any) -> Any:
    """A written document with the masks in it replaced by the secrets that stand there in `old`, both open.

    Raises `Invalid` with the path of a mask where there was no secret.
    """

    def kept(path: str, text: str) -> str:
        if text != MASK:
            return text
        if path not in before:
            raise Invalid(f"{MASK} stands for a secret that is there already, and here is none: write it", path)
        return before[path]

    before: dict[str, str] = {}

    def noted(path: str, text: str) -> str:
        before[path] = text
        return text

    _walk(old, noted, "", under=False)
    return _walk(new, kept, "", under=False)


def has_seal(document: Any) -> bool:
    """Whether somebody wrote what only we write."""
    if isinstance(document, dict):
        return SEALED in document or any(has_seal(item) for item in document.values())
    return isinstance(document, list) and any(has_seal(item) for item in document)


def _walk(value: Any, leaf: Leaf, path: str, *, under: bool) -> Any:
    """The document with its secret texts replaced; `under` what is secret as a whole."""
    if isinstance(value, dict):
        if SEALED in value:
            return value
        found = {}
        for key, item in value.items():
            where = f"{path}.{key}" if path else str(key)
            if key in _INSIDE and isinstance(item, str):
                found[key] = _walk_inside(item, leaf, where)
            else:
                secret = under or _ENVIRONMENT.search(str(key)) is not None
                found[key] = _walk(item, leaf, where, under=secret or _NAME.search(str(key)) is not None)
        return found
    if isinstance(value, list):
        names = documents.names_of(value) or documents.positions(value)
        return [_walk(item, leaf, f"{path}[{n}]", under=under) for n, item in zip(names, value, strict=True)]
    if isinstance(value, str) and value and (under or value == MASK or _LOGIN.search(value)):
        return leaf(path, value)
    return value


def _walk_inside(text: str, leaf: Leaf, path: str) -> Any:
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return leaf(path, text) if _LOGIN.search(text) else text
    became: list[Any] = []

    def noted(where: str, secret: str) -> Any:
        became.append(leaf(where, secret))
        return became[-1]

    new = _walk(document, noted, path, under=False)
    if not all(isinstance(one, str) for one in became):
        return leaf(path, text)  # sealed as a whole
    return text if new == document else msgspec.json.encode(new).decode()


def _unseal(value: Any, opened: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(sealed := value.get(SEALED), str):
            return opened(sealed)
        return {key: _unseal(item, opened) for key, item in value.items()}
    if isinstance(value, list):
        return [_unseal(item, opened) for item in value]
    return value
