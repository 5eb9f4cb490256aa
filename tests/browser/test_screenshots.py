"""The pictures of the documentation can be taken."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.screenshots.__main__ import take_all
from tests.serving import Served


@pytest.mark.slow
def test_pictures_are_taken_of_the_pages_that_are_named(chromium: Browser, demo: Served, tmp_path: Path) -> None:
    """In both widths and both themes, of a plant with an incident and a dashboard."""
    assert take_all({"wide": chromium, "narrow": chromium}, demo, {"fleet", "dashboard"}, tmp_path) == 8
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        f"{page}-{size}-{theme}.webp"
        for page in ("fleet", "dashboard")
        for size in ("wide", "narrow")
        for theme in ("light", "dark")
    }
    assert all(1000 < path.stat().st_size < 100_000 for path in tmp_path.iterdir())
