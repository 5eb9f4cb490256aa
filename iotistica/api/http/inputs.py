"""Types of request values with their limits."""

from typing import Annotated, Final, TypeVar

import msgspec
from litestar.params import QueryParameter
from msgspec import Meta

from iotistica.domain import names
from iotistica.domain.access import credentials, passwords
from iotistica.errors import Invalid

# The end of the string, in Python's and in JavaScript's regular expressions; `$` would also match before a newline.
_END: Final = r"(?![\s\S])"
# Control characters, and characters that reverse or hide text: names are shown in terminals and web pages.
_UNSEEN: Final = r"\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"
_BLANK: Final = r"\s" + _UNSEEN

Email = Annotated[
    str,
    Meta(min_length=3, max_length=254, pattern=rf"^[^@{_BLANK}]+@[^@{_BLANK}]+{_END}", examples=["a@example.com"]),
]
Username = Annotated[str, Meta(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._-]{{2,63}}{_END}")]
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern=rf"^[^{_UNSEEN}]*{_END}")]
ShortName = Annotated[str, Meta(min_length=1, max_length=100, pattern=rf"^[^{_UNSEEN}]*{_END}")]
Text = Annotated[str, Meta(max_length=500, pattern=rf"^[^\x00]*{_END}")]
Password = Annotated[str, Meta(max_length=passwords.LONGEST)]

Secret = Annotated[
    str,
    Meta(
        min_length=credentials.SHORTEST,
        max_length=credentials.LONGEST,
        pattern=rf"^(?!{credentials.INTEGRATION})[A-Za-z0-9_-]+{_END}",
    ),
]
"""A secret that an agent generated; its pattern excludes access tokens and API keys."""


class NamedBody(msgspec.Struct, frozen=True, kw_only=True):
    """A request body whose texts are composed (NFC), so that equal names are equal however they were typed."""

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            if isinstance(text := getattr(self, field), str) and not text.isascii():
                msgspec.structs.force_setattr(self, field, names.composed(text))


Limit = Annotated[int, QueryParameter(ge=1, le=1000)]
Cursor = Annotated[str | None, QueryParameter(max_length=64)]


Body = TypeVar("Body")


def convert(content: object, type_: type[Body]) -> Body:
    """Return decoded JSON as a request body; raises `Invalid` with the path of the field at fault."""
    try:
        return msgspec.convert(content, type_)
    except msgspec.ValidationError as exc:
        text, _, path = str(exc).partition(" - at `$")
        raise Invalid(text, path.strip("`.")) from None
