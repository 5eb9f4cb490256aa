"""Texts of messages that tenants write themselves, in the Liquid language, with bounds on what one may cost."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Final

from liquid import BoundTemplate, Environment, StrictUndefined

from iotistica.errors import Invalid

LONGEST: Final = 8000  # characters of a text
FILTERS: Final = frozenset(
    (
        *("abs", "at_least", "at_most", "capitalize", "ceil", "date", "default", "divided_by", "downcase"),
        *("escape", "first", "floor", "join", "last", "map", "minus", "modulo", "plus", "round", "size", "slice"),
        *("sort", "strip", "times", "truncate", "truncatewords", "upcase", "where"),
    )
)
"""The filters that can be used: none makes much more text than it is given, as a chain of `replace` can."""
TAGS: Final = frozenset(
    (
        *("#", "assign", "break", "case", "comment", "content", "continue", "echo", "for", "if", "illegal"),
        *("output", "unless"),
    )
)
_RANGE: Final = re.compile(r"\(\s*[^\s()]+?\s*\.\.")


class _Environment(Environment):
    """Loops and outputs end at these bounds, and a name that does not exist is an error."""

    context_depth_limit: ClassVar[int] = 5
    loop_iteration_limit: ClassVar[int | None] = 2000
    output_stream_limit: ClassVar[int | None] = 16_000
    local_namespace_limit: ClassVar[int | None] = 20_000

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:
        super().setup_tags_and_filters(extra=extra)
        self.filters = {name: filter_ for name, filter_ in self.filters.items() if name in FILTERS}
        self.tags = {name: tag for name, tag in self.tags.items() if name in TAGS}


_ENVIRONMENT: Final = _Environment(undefined=StrictUndefined)


def check(text: str | None, path: str) -> None:
    """Raise `Invalid` if a text is not a template, or fails for an incident in one of the states that are told."""
    if text is not None:
        try:
            for changed in STATES:
                render(text, EXAMPLE | changed)
        except Invalid as exc:
            raise Invalid(str(exc), path) from None


def render(text: str, facts: Mapping[str, Any]) -> str:
    """Return a text with the facts of an incident in it; raises `Invalid` with the reason."""
    if _RANGE.search(text):
        raise Invalid("cannot be used as a template: ranges such as (1..9) are not allowed")
    try:
        return str(_parse(text).render(**facts))[:LONGEST]
    except Exception as exc:  # noqa: BLE001 a filter can raise anything, and a message must not fail because of it
        raise Invalid(f"cannot be used as a template: {str(exc) or type(exc).__name__}") from None


@lru_cache(maxsize=1024)
def _parse(text: str) -> BoundTemplate:
    return _ENVIRONMENT.from_string(text)


EXAMPLE: Final[dict[str, Any]] = {
    "kind": "opened",
    "incidentId": "5b0c8f3e-0c53-4a5e-9f63-0f1f1f7a9a10",
    "title": "Boiler too hot",
    "severity": "critical",
    "status": "open",
    "ruleId": "0b0ad4cf-3f7c-4d2c-a2a1-5cf1f2b7e9aa",
    "openedAt": "2026-01-31T08:15:00+00:00",
    "resolvedAt": None,
    "members": 1,
    "activeMembers": 1,
    "labels": {"site": "berlin"},
    "about": [
        {
            "agentUuid": "550e8400-e29b-41d4-a716-446655440000",
            "agentName": "gateway-7",
            "metricName": "boiler.temperature",
            "value": 71.2,
            "since": "2026-01-31T08:14:00+00:00",
            "bound": 70.0,
        }
    ],
    "summary": "boiler.temperature of gateway-7: 71.2 is above 70",
    "url": "",
}
"""The facts of an incident that previews show."""
STATES: Final[tuple[dict[str, Any], ...]] = (
    {"kind": "opened"},
    {"kind": "escalated"},
    {"kind": "test"},
    {"kind": "resolved", "status": "resolved", "resolvedAt": "2026-01-31T09:00:00+00:00", "activeMembers": 0},
    {"ruleId": None, "labels": {}, "about": []},
)
"""What differs in the facts of other messages."""
