"""Finds the names that are most like a name that does not exist, for people who mistyped it."""

import difflib
from collections.abc import Iterable
from typing import Final

MOST: Final = 3
LONGEST: Final = 100  # characters of a name that are compared
CUTOFF: Final = 0.55


def nearest(name: str, known: Iterable[tuple[str, str]]) -> list[str]:
    """Return up to `MOST` of the known names, the most alike first.

    Each known name is a pair of the whole name and the metric in it; either can be alike.
    """
    wanted = _folded(name)
    if not wanted:
        return []
    ranked: list[tuple[float, str]] = []
    for whole, metric in known:
        likeness = max(_likeness(wanted, _folded(whole)), _likeness(wanted, _folded(metric)))
        if likeness >= CUTOFF:
            ranked.append((-likeness, whole))
    return [whole for _, whole in sorted(ranked)[:MOST]]


def _folded(name: str) -> str:
    return name.casefold()[:LONGEST]


def _likeness(one: str, other: str) -> float:
    """Return how alike two names are, 0 to 1; a name that is a part of the other counts as very alike."""
    if one == other:
        return 1.0
    if min(len(one), len(other)) >= 3 and (one in other or other in one):
        return 0.9
    matcher = difflib.SequenceMatcher(None, other, one)
    if matcher.real_quick_ratio() < CUTOFF or matcher.quick_ratio() < CUTOFF:
        return 0.0
    return matcher.ratio()
