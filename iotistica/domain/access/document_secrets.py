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
from iotistica.domain.documents import SEALED
from iotistica.domain.ids import TenantId
from iotistica.domain.key_derivation import derive
from iotistica.errors import Invalid

MASK: Final = "********"
"""Stands for a secret; written back where one was, it leaves that as it is."""
_NAME: Final = re.compile(
    r"pass(word|wd|phrase|code)?$|pwd$|secret|token$|private_?key|access_?key|credential|psk$|^community$"
    r"|(api|client|auth|priv|privacy|shared|account|signing|encryption)_?key$",
    re.I,
)
_ENVIRONMENT: Final = re.compile(r"^env(ironment)?(_?(vars?|variables))?$", re.I)
_AUTHORITY: Final = re.compile(r"://([^/\s]*)")
_NUMBER: Final = "\0"
"""Before what is sealed as a number; no text of a document holds one."""
_INSIDE: Final = ("connectionString",)
"""Texts that are JSON themselves, as agents echo the connections of endpoints."""

Path = tuple[str, ...]
Secret = str | int | float
Leaf = Callable[[Path, Secret], Any]
"""What becomes of a secret: where it stands, key by key, and itself."""


class SecretBox:
    """Seals and opens the secrets of documents; the same text of one tenant is always sealed alike."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(derive(key, "documents") + derive(key, "documents", "2"))

    def seal(self, document: Any, tenant: TenantId) -> Any:
        """The document with every secret in it sealed for the tenant; raises `Invalid` for a foreign seal."""
        return _walk(document, lambda _, secret: self._seal(secret, tenant), (), under=False)

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
    """The document, sealed or not, as people may read it who must not see its secrets."""
    return _walk(_unseal(document, lambda _: MASK), lambda _, __: MASK, (), under=False)


def keep_masked(new: Any, old: Any) -> Any:
    """A written document with the masks in it replaced by the secrets that stand there in `old`, both open.

    Raises `Invalid` with the path of a mask where there was no secret.
    """

    def kept(path: Path, secret: Secret) -> Secret:
        if secret != MASK:
            return secret
        if path not in before:
            where = ".".join(path).replace(".[", "[")
            raise Invalid(f"{MASK} stands for a secret that is there already, and here is none: write it", where)
        return before[path]

    before: dict[Path, Secret] = {}

    def noted(path: Path, secret: Secret) -> Secret:
        before[path] = secret
        return secret

    _walk(old, noted, (), under=False)
    return _walk(new, kept, (), under=False)


def has_seal(document: Any) -> bool:
    """Whether somebody wrote what only we write."""
    if isinstance(document, dict):
        return SEALED in document or any(has_seal(item) for item in document.values())
    return isinstance(document, list) and any(has_seal(item) for item in document)


def _walk(value: Any, leaf: Leaf, path: Path, *, under: bool) -> Any:
    """The document with its secrets replaced; `under` what is secret as a whole."""
    if isinstance(value, dict):
        if SEALED in value:
            return value
        found = {}
        for key, item in value.items():
            where = (*path, str(key))
            if key in _INSIDE and isinstance(item, str):
                found[key] = _walk_inside(item, leaf, where)
            else:
                secret = under or _ENVIRONMENT.search(str(key)) is not None
                found[key] = _walk(item, leaf, where, under=secret or _NAME.search(str(key)) is not None)
        return found
    if isinstance(value, list):
        names = documents.names_of(value) or documents.positions(value)
        return [_walk(item, leaf, (*path, f"[{n}]"), under=under) for n, item in zip(names, value, strict=True)]
    if isinstance(value, str):
        return leaf(path, value) if value and (under or value == MASK or _has_login(value)) else value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return leaf(path, value) if under and is_number else value


def _has_login(text: str) -> bool:
    """Whether an address in it names a user and a password."""
    for found in _AUTHORITY.finditer(text):
        user, at, _ = found[1].rpartition("@")
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
    became: list[Any] = []

    def noted(where: Path, secret: Secret) -> Any:
        became.append(leaf(where, secret))
        return became[-1]

    new = _walk(document, noted, path, under=False)
    if not became:
        return text
    whole = leaf(path, text)  # which its mask may stand for, where it was sealed as a whole
    if any(isinstance(one, dict) for one in became):
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
