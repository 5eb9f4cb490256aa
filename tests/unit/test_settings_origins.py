"""The setting of other origins."""

import pytest

from iotistica.errors import CannotStart
from iotistica.settings import Settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("https://plant.example", ["https://plant.example"]),
        (" https://a.example/ , http://b.local:8080,", ["https://a.example", "http://b.local:8080"]),
        ("*", ["*"]),
    ],
)
def test_origins_are_listed(text: str, expected: list[str]) -> None:
    """Separated by commas, with or without a slash at the end."""
    assert Settings(cors_origins=text).allowed_origins() == expected


@pytest.mark.parametrize("text", ["plant.example", "https://plant.example/page", "ftp://plant.example", "https://"])
def test_what_is_no_origin_is_refused_at_the_start(text: str) -> None:
    """With the text at fault; a silent mistake would look like a fault of the browser."""
    with pytest.raises(CannotStart, match="IOTISTICA_CORS_ORIGINS"):
        Settings(cors_origins=text).allowed_origins()
