"""The message texts of msgspec that `iotistica/setting_errors.py` and `iotistica/settings.py` match."""

import re
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from iotistica.setting_errors import explain

TEXTS = "msgspec changed a message: adapt iotistica/setting_errors.py and iotistica/settings.py"


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Annotated[int, Meta(le=9)], "10", "must be at most 9; it is 10"),
        (Annotated[int, Meta(ge=1)], "0", "must be at least 1; it is 0"),
        (Annotated[float, Meta(gt=0)], "0", "must be more than 0.0; it is 0"),
        (int, "x", "must be a whole number; it is x"),
        (float, "x", "must be a number; it is x"),
        (Annotated[str, Meta(pattern="@")], "x", "must be an e-mail address; it is x"),
        (str, 1, "must be a string; it is 1"),
    ],
)
def test_an_invalid_setting_is_explained(kind: Any, value: Any, text: str) -> None:
    """Converted as `setting_sources.load` does, from text."""
    Settings = msgspec.defstruct("Settings", [("port", kind)])
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"port": value}, Settings, strict=False)
    what, separator, field = str(caught.value).partition(" - at `$.")
    assert separator, TEXTS
    assert field == "port`", TEXTS
    assert explain(what, kind, value) == text, TEXTS


def test_the_description_of_a_field_is_in_its_annotation() -> None:
    """`settings.describe` reads it from the metadata of the type that `msgspec.structs.fields` returns."""
    Settings = msgspec.defstruct("Settings", [("port", Annotated[int, Meta(description="the port")])])
    (field,) = msgspec.structs.fields(Settings)
    assert field.type.__metadata__[0].description == "the port", TEXTS


def test_decoding_errors_are_of_the_classes_that_the_decoder_catches() -> None:
    """`iotistica/domain/codec.py` decodes leniently after any of these."""
    message = "msgspec changed: adapt iotistica/domain/codec.py"
    assert issubclass(msgspec.ValidationError, msgspec.MsgspecError), message
    for document in (b"{", b"nan", b"9" * 5000 + b"x", b"[" * 100_000, b'"\xff"'):
        with pytest.raises((msgspec.MsgspecError, RecursionError, UnicodeDecodeError)):
            msgspec.json.decode(document)


def test_a_pattern_matches_anywhere_in_the_text() -> None:
    """The patterns in `iotistica/api/http/inputs.py` rely on `re.search`, and on Python's dialect."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert("a\n", Annotated[str, Meta(pattern=r"^a(?![\s\S])")])
    assert msgspec.convert("xa", Annotated[str, Meta(pattern="a")]) == "xa"
    assert re.search("a", "xa")
