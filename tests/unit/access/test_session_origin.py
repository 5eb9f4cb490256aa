"""Which requests with a cookie are taken for those of the dashboard's own page."""

import pytest

from iotistica.domain.access.session_origin import is_own_page

OWN = ("plant.local:3002", "iot.plant.example")


@pytest.mark.parametrize(
    ("fetch_site", "origin", "expected"),
    [
        ("same-origin", "http://plant.local:3002", True),
        ("same-origin", None, True),
        ("same-site", "http://plant.local:8080", False),
        ("cross-site", "https://evil.example", False),
        ("none", None, False),
        (None, "http://plant.local:3002", True),
        (None, "https://iot.plant.example", True),
        (None, "http://plant.local:8080", False),
        (None, "https://evil.example", False),
        (None, "null", False),
        (None, None, True),
    ],
)
def test_only_the_own_page_uses_the_cookie(fetch_site: str | None, origin: str | None, expected: bool) -> None:
    """The browser's word counts first, then the origin; a program that sends neither has no cookie by accident."""
    assert is_own_page(fetch_site, origin, OWN) is expected
