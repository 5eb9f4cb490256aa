"""What is known about an agent that does not send: everything that `domain.delivery.diagnosis` judges."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.delivery.diagnosis import Evidence, PastEvent
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

KINDS: Final = ("broker", "message", "readings", "clock")
"""Groups of timeline events that tell why nothing arrives."""
EVENTS: Final = 300  # the newest that are read
UNTOLD: Final = timedelta(seconds=60)  # in which a dead letter reaches the timeline
LETTERS: Final = 100  # younger ones that are read


class EvidenceRows(msgspec.Struct, frozen=True, kw_only=True):
    """The stored rows; `evidence` judges them outside of the transaction."""

    agent: AgentSummary
    is_tenant_enabled: bool
    presence: Presence | None
    target: TargetRows
    events: list[TimelineRow]
    rejections: list[RecentRejection]


class StreamEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What Redis knows: the dead letters of the last minute, and how long messages wait to be stored, in s."""

    letters: list[DeadLetter]
    waiting_seconds: float


async def load(tx: Tx, tenant: TenantId, agent: UUID) -> EvidenceRows:
    """Load the rows of an agent; raises `NotFound`."""
    target = await target_comparison.load(tx, tenant, agent)
    owner = await tenants.find(tx, tenant)
    if target.agent is None:
        raise NotFound
    return EvidenceRows(
        agent=target.agent,
        is_tenant_enabled=owner is None or owner.enabled,
        presence=await presence.get(tx, tenant, agent),
        target=target,
        events=await timeline.page(tx, tenant, agent, before=None, kinds=KINDS, limit=EVENTS),
        rejections=await ledger.recent_rejections(tx, tenant, agent),
    )


async def load_streams(redis: Redis, tenant: TenantId, agent: UUID, now: datetime) -> StreamEvidence:
    """Read what is not in the database yet."""
    after = f"{int((now - UNTOLD).timestamp() * 1000)}-0"
    page = await dead_letters.page(redis, tenant, after=after, limit=LETTERS, agent=str(agent))
    oldest, _ = await stream_stats.lag(redis, [tenant])
    waiting = 0.0 if oldest == float("inf") else max(now.timestamp() - oldest, 0.0)
    return StreamEvidence(letters=page.letters, waiting_seconds=waiting)


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
        data_at=seen.data_at if seen else None,
        heard_at=seen.heard_at if seen else None,
        polled_at=found.facts.polled_at,
        reported_at=found.facts.reported_at,
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
    told = max((event.at for event in events if event.kind == MESSAGE_REFUSED), default=None)
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
