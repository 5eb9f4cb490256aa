"""The scope of a rule: which agents and which of their series it watches."""

import re
from collections.abc import Mapping
from fnmatch import translate
from functools import lru_cache
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from iotistica.domain.agents import tag_selectors
from iotistica.domain.agents.tag_selectors import Selector
from iotistica.domain.names import composed
from iotistica.errors import Invalid

Pattern = Annotated[str, Meta(min_length=1, max_length=512)]
"""A name in which `*` stands for any characters and `?` for one."""
WILDCARDS: Final = 10  # in one pattern; each can make a comparison that fails slower


class Scope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a rule watches: everything that fits all the fields that are given."""

    agent: UUID | None = None
    fleet: UUID | None = None
    tags: Annotated[str, Meta(max_length=tag_selectors.SELECTOR_LENGTH)] | None = None
    """A selector of agents by their tags: `site=berlin,line in (1,2),!spare`."""
    device: Pattern | None = None
    series: Pattern | None = None
    """The whole name of a series, or its metric alone."""

    def check(self, path: str) -> None:
        """Raise `Invalid` for a selector or a pattern that cannot be understood."""
        if self.tags is not None:
            try:
                tag_selectors.parse(self.tags)
            except Invalid as exc:
                raise Invalid(str(exc), f"{path}.tags") from None
        for name, pattern in (("device", self.device), ("series", self.series)):
            if pattern is not None and sum(pattern.count(wildcard) for wildcard in "*?") > WILDCARDS:
                raise Invalid(f"must have at most {WILDCARDS} wildcards", f"{path}.{name}")


class AgentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What scopes and silences ask of an agent."""

    agent_uuid: UUID
    name: str
    fleet_uuid: UUID | None
    tags: dict[str, str]


def has_agent(scope: Scope, agent: AgentFacts) -> bool:
    """Whether an agent is in the scope, whatever its series are."""
    return (
        (scope.agent is None or scope.agent == agent.agent_uuid)
        and (scope.fleet is None or scope.fleet == agent.fleet_uuid)
        and (scope.tags is None or matches_tags(scope.tags, agent.tags))
    )


def has_series(scope: Scope, metric_name: str, metric: str, device: str | None) -> bool:
    """Whether a series of an agent in the scope is in it as well."""
    if scope.series is not None:
        pattern = _pattern(scope.series)
        if not pattern.fullmatch(metric_name) and not pattern.fullmatch(metric):
            return False
    return scope.device is None or (device is not None and _pattern(scope.device).fullmatch(device) is not None)


def matches_tags(selector: str, tags: Mapping[str, str]) -> bool:
    """Whether an agent with these tags matches a selector that was checked before."""
    return tag_selectors.matches(_selector(selector), tags)


@lru_cache(maxsize=4096)
def _selector(text: str) -> Selector:
    return tag_selectors.parse(text)


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    # Brackets are literal: the names of OPC UA nodes and of arrays have them.
    return re.compile(translate(composed(text).replace("[", "[[]")))
