"""The nearest names of one that was mistyped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.telemetry.similar_names import MOST, nearest

KNOWN = [
    ("boiler-1.temperature", "temperature"),
    ("boiler-2.temperature", "temperature"),
    ("boiler-1.pressure", "pressure"),
    ("cpu_usage", "cpu_usage"),
    ("Außentemperatur", "Außentemperatur"),
]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("tempratur", "boiler-1.temperature"),
        ("Temperature", "boiler-1.temperature"),
        ("boiler-2.temp", "boiler-2.temperature"),
        ("boiler_1.pressure", "boiler-1.pressure"),
        ("cpu usage", "cpu_usage"),
        ("AUSSENTEMPERATUR", "Außentemperatur"),
        ("presure", "boiler-1.pressure"),
    ],
)
def test_a_mistyped_name_is_told_the_nearest_first(name: str, first: str) -> None:
    """Case, separators and letters left out do not matter; the whole name counts as well as the metric."""
    assert nearest(name, KNOWN)[0] == first


def test_what_is_like_nothing_gets_no_name() -> None:
    """A wrong hint would be worse than none."""
    assert nearest("xyzzy", KNOWN) == []
    assert nearest("", KNOWN) == []
    assert nearest("x" * 600, [("x" * 512, "x" * 512)]) != []


@given(st.text(max_size=40), st.lists(st.text(max_size=40), max_size=20))
def test_only_names_that_exist_are_told(name: str, known: list[str]) -> None:
    """At most three, each of them known; a name that exists is its own nearest."""
    found = nearest(name, [(one, one) for one in known])
    assert len(found) <= MOST
    assert set(found) <= set(known)
    if name in known and name:
        assert name in found or known.count(name) > 1
