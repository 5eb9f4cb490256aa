"""Secrets in JSON documents: found by their keys, sealed (encrypted) for storage, and masked for display."""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from iotistica.domain import documents
from iotistica.domain.documents import SEALED
from iotistica.domain.ids import TenantId
from iotistica.domain.key_derivation import derive
from iotistica.errors import Invalid

MASK: Final = "********"
"""The text shown instead of a secret; a client that writes it back in the same place keeps the secret."""
_NAME: Final = re.compile(
    r"pass(word|wd|phrase|code)?$|pwd$|secret|token$|private_?key|access_?key|credential|psk$|^community$"
    r"|(api|client|auth|priv|privacy|shared|account|signing|encryption)_?key$",
    re.I,
)
_ENVIRONMENT: Final = re.compile(r"^env(ironment)?(_?(vars?|variables))?$", re.I)
_AUTHORITY: Final = re.compile(r"://([^/\s]*)")
_NUMBER: Final = "\0"
"""Prefix of a sealed number; text in a document never contains a NUL character."""
_INSIDE: Final = ("connectionString",)
"""Keys whose text is itself JSON: agents report the connections of endpoints in this form."""

Path = tuple[str, ...]
Secret = str | int | float
Leaf = Callable[[Path, Secret], Any]
"""A function that returns the replacement of a secret, from its path (key by key) and the secret."""


class SecretBox:
    """Seals and opens the secrets of documents; the same text of one tenant always gives the same sealed text."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(derive(key, "documents") + derive(key, "documents", "2"))

    def seal(self, document: Any, tenant: TenantId) -> Any:
        """Return the document with every secret in it sealed for the tenant; sealed values stay as they are."""
        return _walk(document, lambda _, secret: self._seal(secret, tenant), (), under=False)

    def open(self, document: Any, tenant: TenantId) -> Any:
        """Return the document with its sealed secrets opened; a secret sealed with another key becomes the mask."""
        return _unseal(document, lambda sealed: self._open(sealed, tenant))

    def seal_bytes(self, content: bytes, tenant: TenantId) -> bytes:
        """Seal a whole document for the tenant."""
        return self._cipher.encrypt(content, [tenant.encode()])

    def open_bytes(self, sealed: bytes, tenant: TenantId) -> bytes | None:
        """Open a sealed document; None if it was sealed with another key or for another tenant."""
        try:
            return self._cipher.decrypt(sealed, [tenant.encode()])
        except InvalidTag:
            return None

    def _seal(self, secret: Secret, tenant: TenantId) -> dict[str, str]:
        text = secret if isinstance(secret, str) else _NUMBER + msgspec.json.encode(secret).decode()
        return {SEALED: b64encode(self._cipher.encrypt(text.encode(), [tenant.encode()])).decode()}

    def _open(self, sealed: str, tenant: TenantId) -> Secret:
        try:
            text = self._cipher.decrypt(b64decode(sealed), [tenant.encode()]).decode()
        except (InvalidTag, binascii.Error, ValueError):
            return MASK
        number: Secret = msgspec.json.decode(text[1:]) if text.startswith(_NUMBER) else text
        return number


def mask(document: Any) -> Any:
    """Return the document, sealed or not, with all its secrets replaced by the mask."""
    return _walk(_unseal(document, lambda _: MASK), lambda _, __: MASK, (), under=False)


def keep_masked(new: Any, old: Any) -> Any:
    """Return `new` with each mask replaced by the secret at the same path in `old`; both must not be sealed.

    Raises `Invalid` with the path of a mask for which `old` has no secret.
    """

    def kept(path: Path, secret: Secret) -> Secret:
        if secret != MASK:
            return secret
        if path not in before:
            where = ".".join(path).replace(".[", "[")
            raise Invalid(f"must be the secret itself, since there is no earlier one that {MASK} could keep", where)
        return before[path]

    before: dict[Path, Secret] = {}

    def noted(path: Path, secret: Secret) -> Secret:
        before[path] = secret
        return secret

    _walk(old, noted, (), under=False)
    return _walk(new, kept, (), under=False)


def has_seal(document: Any) -> bool:
    """Whether a document from a client contains a sealed value, which only the platform can write."""
    if isinstance(document, dict):
        return SEALED in document or any(has_seal(item) for item in document.values())
    return isinstance(document, list) and any(has_seal(item) for item in document)


def _walk(value: Any, leaf: Leaf, path: Path, *, under: bool) -> Any:
    """Return the document with its secrets replaced; `under` is True inside a key whose whole value is secret."""
    if isinstance(value, dict):
        if SEALED in value:
            return value
        replaced = {}
        for key, item in value.items():
            where = (*path, str(key))
            if key in _INSIDE and isinstance(item, str):
                replaced[key] = _walk_inside(item, leaf, where)
            else:
                secret = under or _ENVIRONMENT.search(str(key)) is not None
                replaced[key] = _walk(item, leaf, where, under=secret or _NAME.search(str(key)) is not None)
        return replaced
    if isinstance(value, list):
        names = documents.names_of(value) or documents.positions(value)
        return [_walk(item, leaf, (*path, f"[{n}]"), under=under) for n, item in zip(names, value, strict=True)]
    if isinstance(value, str):
        return leaf(path, value) if value and (under or value == MASK or _has_login(value)) else value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return leaf(path, value) if under and is_number else value


def _has_login(text: str) -> bool:
    """Whether the text contains a URL with a user and a password."""
    for match in _AUTHORITY.finditer(text):
        user, at, _ = match[1].rpartition("@")
        if at and ":" in user:
            return True
    return False


def _walk_inside(text: str, leaf: Leaf, path: Path) -> Any:
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        document = None
    if not isinstance(document, dict):
        return leaf(path, text) if text == MASK or _has_login(text) else text
    if documents.is_deep(document) or documents.is_large(document):
        return leaf(path, text)
    replacements: list[Any] = []

    def noted(where: Path, secret: Secret) -> Any:
        replacements.append(leaf(where, secret))
        return replacements[-1]

    new = _walk(document, noted, path, under=False)
    if not replacements:
        return text
    whole = leaf(path, text)  # called in any case: a text that was sealed as a whole is kept by its mask
    if any(isinstance(item, dict) for item in replacements):
        return whole
    return text if new == document else msgspec.json.encode(new).decode()


def _unseal(value: Any, opened: Callable[[str], Secret]) -> Any:
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(sealed := value.get(SEALED), str):
            return opened(sealed)
        return {key: _unseal(item, opened) for key, item in value.items()}
    if isinstance(value, list):
        return [_unseal(item, opened) for item in value]
    return value
