"""Narrows down which rules of an agent can watch a series, before their patterns are compared with its name."""

from collections.abc import Iterable

from iotistica.domain.alerts.rules import Rule
from iotistica.storage.alerts.watched_series import SeriesRow


class RuleCandidates:
    """The rules of an agent by the names of series that they spell out; those with wildcards fit any name."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._by_name: dict[str, list[Rule]] = {}
        self._patterns: list[Rule] = []
        for rule in rules:
            pattern = rule.definition.scope.series
            if pattern is None or "*" in pattern or "?" in pattern:
                self._patterns.append(rule)
            else:
                self._by_name.setdefault(pattern, []).append(rule)

    def of(self, row: SeriesRow) -> list[Rule]:
        """Return the rules that can watch a series."""
        exact = self._by_name.get(row.metric_name, [])
        if row.metric != row.metric_name:
            exact = exact + self._by_name.get(row.metric, [])
        return exact + self._patterns
