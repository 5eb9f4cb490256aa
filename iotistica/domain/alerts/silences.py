"""Silences: incidents that nobody is told of for a time."""

from collections.abc import Iterable
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from iotistica.domain.alerts import scopes
from iotistica.domain.alerts.events import Severity
from iotistica.domain.alerts.scopes import AgentFacts, Scope

LONGEST_DAYS: Final = 366


class Matches(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    """What a silence is about: incidents that fit everything that is given; all of them for nothing."""

    rules: Annotated[tuple[UUID, ...], Meta(max_length=100)] | None = None
    severities: Annotated[tuple[Severity, ...], Meta(max_length=3)] | None = None
    scope: Scope = Scope()
    """An incident about several series or agents is silent only if all that is active is in the scope."""


def covers(
    matches: Matches, rule: UUID | None, severity: Severity, members: Iterable[tuple[AgentFacts | None, str]]
) -> bool:
    """Whether a silence covers an incident with these active members: agents with the names of their series."""
    if matches.rules is not None and rule not in matches.rules:
        return False
    if matches.severities is not None and severity not in matches.severities:
        return False
    return matches.scope == Scope() or all(
        agent is not None
        and scopes.has_agent(matches.scope, agent)
        and scopes.has_series(matches.scope, name, name.rpartition(".")[2], name.rpartition(".")[0] or None)
        for agent, name in members
    )
