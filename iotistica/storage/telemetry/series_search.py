"""Search for the series of a tenant by metric, agents and tags."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
import psycopg

from iotistica.domain.ids import TenantId
from iotistica.errors import Invalid
from iotistica.storage.postgres import Tx, fetch_rows

TagName = Literal[
    "protocol",
    "unit",
    "device_name",
    "device_uuid",
    "endpoint_uuid",
    "metric",
    "metric_name",
    "agent_uuid",
    "agent_name",
    "fleet_uuid",
]
TAGS: Final[dict[TagName, str]] = {
    "protocol": "s.protocol",
    "unit": "s.unit",
    "device_name": "s.device_name",
    "device_uuid": "s.device_uuid::text",
    "endpoint_uuid": "s.endpoint_uuid::text",
    "metric": "s.metric",
    "metric_name": "s.metric_name",
    "agent_uuid": "s.agent_uuid::text",
    "agent_name": "a.name",
    "fleet_uuid": "a.fleet_uuid::text",
}
FilterKind = Literal["exact", "wildcard", "regexp"]
PATTERN_LENGTH: Final = 128
_COSTLY: Final = re.compile(r"[{]|\\[1-9mMyY]")
_MATCHES: Final = {
    "exact": "{column} = %(filter{at})s",
    "wildcard": "{column} LIKE %(filter{at})s",
    "regexp": "{column} ~ %(filter{at})s",
}


class TagFilter(msgspec.Struct, frozen=True):
    """A condition on the value of a tag; `*` in a wildcard matches any text."""

    tag: TagName
    kind: FilterKind
    text: str


class TaggedSeries(msgspec.Struct, frozen=True, kw_only=True):
    """A series and its tags, without those that are null."""

    agent_uuid: UUID
    metric_name: str
    tags: dict[str, str]


FIND: Final = f"""
SELECT s.agent_uuid, s.metric_name, jsonb_strip_nulls(jsonb_build_object(
    {", ".join(f"'{name}', {column}" for name, column in TAGS.items())})) AS tags
FROM series s JOIN agents a USING (agent_uuid)
WHERE a.tenant_id = %(tenant)s AND s.tenant_id = %(tenant)s
  AND (s.metric_name = ANY(%(metrics)s::text[]) OR s.metric = ANY(%(metrics)s::text[]))
  AND (%(agents)s::uuid[] IS NULL OR s.agent_uuid = ANY(%(agents)s::uuid[]))
"""


async def find(
    tx: Tx,
    tenant: TenantId,
    metrics: Sequence[str],
    agents: Sequence[UUID] | None,
    filters: Sequence[TagFilter],
    *,
    limit: int,
    path: str = "filters",
) -> list[TaggedSeries]:
    """Return up to `limit` series whose name or metric is one of `metrics`, of all agents (None) or of these.

    Raises `Invalid` at `path` for a bad pattern.
    """
    statement: Any = FIND
    parameters: dict[str, Any] = {"tenant": tenant, "metrics": list(metrics), "limit": limit}
    parameters["agents"] = agents if agents is None else list(agents)
    for at, tag_filter in enumerate(filters):
        statement += " AND " + _MATCHES[tag_filter.kind].format(column=TAGS[tag_filter.tag], at=at)
        parameters[f"filter{at}"] = _TEXTS[tag_filter.kind](tag_filter.text, path)
    try:
        return await fetch_rows(
            tx, TaggedSeries, statement + " ORDER BY s.agent_uuid, s.metric_name LIMIT %(limit)s", parameters
        )
    except psycopg.errors.InvalidRegularExpression as exc:
        raise Invalid(f"must be a valid regular expression: {exc.diag.message_primary}", path) from exc


def _pattern(text: str, path: str) -> str:
    """Return the pattern unless it is too long or can be costly for the database; raises `Invalid`."""
    if len(text) > PATTERN_LENGTH or _COSTLY.search(text):
        raise Invalid(
            f"must have at most {PATTERN_LENGTH} characters, no counts such as {{3}} and no back-references",
            path,
        )
    return text


def _like(text: str, _: str) -> str:
    for character in "\\%_":
        text = text.replace(character, "\\" + character)
    return text.replace("*", "%")


_TEXTS: Final[dict[FilterKind, Callable[[str, str], str]]] = {
    "exact": lambda text, _: text,
    "wildcard": _like,
    "regexp": _pattern,
}
