"""Loads what is known about an agent that does not send, as `domain.delivery.evidence`."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.delivery.evidence import Evidence, PastEvent
from iotistica.domain.ids import TenantId
from iotistica.errors import NotFound
from iotistica.storage.access import tenants
from iotistica.storage.agents import presence, target_comparison
from iotistica.storage.agents.agent_search import AgentSummary
from iotistica.storage.agents.presence import Presence
from iotistica.storage.agents.target_comparison import TargetRows
from iotistica.storage.delivery import dead_letters, ledger, stream_stats
from iotistica.storage.delivery.dead_letters import DeadLetter, letter_details
from iotistica.storage.delivery.ledger import RecentRejection
from iotistica.storage.history import timeline
from iotistica.storage.history.timeline import MESSAGE_REFUSED, TimelineRow
from iotistica.storage.postgres import Tx
from iotistica.storage.redis import Redis

KINDS: Final = (("broker",), ("message", "readings"), ("clock",))
"""Groups of timeline events that tell why nothing arrives; each is read by itself, so that none hides another."""
EVENTS: Final = 200  # the newest of a group that are read
RECENT: Final = timedelta(hours=6)  # in which readings are searched
SERIES: Final = 500  # series of an agent that are searched
UNTOLD: Final = timedelta(seconds=60)  # in which a dead letter reaches the timeline
LETTERS: Final = 50  # younger ones that are read, the newest; each can have a megabyte


class EvidenceRows(msgspec.Struct, frozen=True, kw_only=True):
    """The stored rows; `evidence` judges them outside of the transaction."""

    agent: AgentSummary
    is_tenant_enabled: bool
    presence: Presence | None
    readings_at: datetime | None
    has_published: bool
    target: TargetRows
    events: list[TimelineRow]
    rejections: list[RecentRejection]


class StreamEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What Redis knows: the dead letters of the last minute, and how long messages wait to be stored, in s."""

    letters: list[DeadLetter]
    waiting_seconds: float


# The readings of protocol `system` are from reports, which also arrive over HTTP.
NEWEST_READING: Final = """
SELECT max(r.time), count(*) > 0 FROM (
    SELECT s.agent_uuid, s.metric_name FROM agents a JOIN series s USING (agent_uuid)
    WHERE a.tenant_id = %(tenant)s AND a.agent_uuid = %(agent)s AND s.protocol <> 'system' LIMIT %(series)s
) s LEFT JOIN LATERAL (
    SELECT time FROM readings r WHERE r.agent_uuid = s.agent_uuid AND r.metric_name = s.metric_name
      AND r.time > %(since)s AND r.time <= %(now)s ORDER BY r.time DESC LIMIT 1
) r ON true
"""


async def load(tx: Tx, tenant: TenantId, agent: UUID) -> EvidenceRows:
    """Load the rows of an agent; raises `NotFound`."""
    target = await target_comparison.load(tx, tenant, agent)
    owner = await tenants.find(tx, tenant)
    if target.agent is None:
        raise NotFound
    now = datetime.now(UTC)
    parameters = {"tenant": tenant, "agent": agent, "since": now - RECENT, "now": now, "series": SERIES}
    cursor = await tx.execute(NEWEST_READING, parameters, prepare=False)
    readings_at, has_published = await cursor.fetchone() or (None, False)
    return EvidenceRows(
        agent=target.agent,
        is_tenant_enabled=owner is None or owner.enabled,
        presence=await presence.get(tx, tenant, agent),
        readings_at=readings_at,
        has_published=has_published,
        target=target,
        events=[
            event
            for kinds in KINDS
            for event in await timeline.page(tx, tenant, agent, before=None, kinds=kinds, limit=EVENTS)
        ],
        rejections=await ledger.recent_rejections(tx, tenant, agent),
    )


async def load_streams(redis: Redis, tenant: TenantId, agent: UUID, now: datetime) -> StreamEvidence:
    """Read what is not in the database yet."""
    letters = await dead_letters.newest(redis, tenant, since=now - UNTOLD, limit=LETTERS)
    oldest, _ = await stream_stats.lag(redis, [tenant])
    waiting = 0.0 if oldest == float("inf") else max(now.timestamp() - oldest, 0.0)
    return StreamEvidence(
        letters=[letter for letter in letters if letter.agent == str(agent)], waiting_seconds=waiting
    )


def evidence(
    rows: EvidenceRows, streams: StreamEvidence, box: SecretBox, now: datetime, *, refused_logins: int = 0
) -> Evidence:
    """Return the evidence in what was loaded; it has no secrets."""
    found = target_comparison.compare(rows.target, box, rows.agent.tenant_id, now)
    seen = rows.presence
    return Evidence(
        now=now,
        state=rows.agent.state,
        tenant_disabled=not rows.is_tenant_enabled,
        replaced_by=str(rows.agent.replaced_by) if rows.agent.replaced_by else None,
        readings_at=rows.readings_at,
        has_published=rows.has_published,
        heard_at=seen.heard_at if seen else None,
        polled_at=found.facts.polled_at,
        reported_at=found.facts.reported_at,
        fetched_at=found.facts.fetched_at,
        events=past_events(rows.events, rows.rejections, streams.letters),
        faults=[f"{fault.what}: {fault.error}" for fault in found.faults],
        target_verdict=found.verdict,
        target_reason=found.reason,
        waiting_seconds=streams.waiting_seconds,
        refused_logins=refused_logins,
    )


def past_events(
    rows: Sequence[TimelineRow], rejections: Sequence[RecentRejection], letters: Sequence[DeadLetter]
) -> list[PastEvent]:
    """Return the events by the time of their latest repetition, the newest first.

    Rejections and dead letters that the timeline does not have yet are added.
    """
    events = [
        PastEvent(kind=row.kind, at=row.last_at or row.at, times=row.times, details=row.details) for row in rows
    ]
    told = max((event.at for event in events if "id" in event.details), default=None)  # those of dead letters
    untold = [letter for letter in letters if told is None or letter.at > told]
    times = Counter(letter.reason for letter in untold)
    events += [
        PastEvent(kind=MESSAGE_REFUSED, at=letter.at, times=times[letter.reason], details=letter_details(letter))
        for letter in {letter.reason: letter for letter in untold}.values()
    ]
    events += [
        PastEvent(kind="readings.rejected", at=row.at, times=row.readings, details={"reason": row.reason})
        for row in rejections
    ]
    return sorted(events, key=lambda event: event.at, reverse=True)
