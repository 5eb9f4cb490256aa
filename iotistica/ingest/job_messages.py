"""What agents say of their jobs, and ask for, by MQTT."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from iotistica.domain import codec
from iotistica.domain.control import job_messages, jobs
from iotistica.domain.control.jobs import JobAnswer
from iotistica.domain.documents import strip_nul
from iotistica.domain.ids import AgentId, TenantId, agent_topic
from iotistica.errors import Conflict, Invalid, InvalidMessage, NotFound
from iotistica.storage.control import agent_jobs
from iotistica.storage.delivery.outbound import OutboundMessage
from iotistica.storage.postgres import Tx

TOPIC: Final = b"jobs/"
NEXT: Final = b"jobs/start-next"
ASKED: Final = 60.0  # seconds for which the answer to a question is worth sending
TOKEN: Final = 64  # characters


class _Answer(NamedTuple):
    number: int
    agent: UUID
    job: UUID
    answer: JobAnswer
    at: datetime


class _JobRequest(NamedTuple):
    agent: UUID
    token: str | None
    at: datetime


class JobMessages:
    """What the agents of one tenant say in one transaction, in its order."""

    def __init__(self, tenant: TenantId) -> None:
        self._tenant = tenant
        self._taken: list[_Answer | _JobRequest] = []
        self.replies: list[OutboundMessage] = []
        """To be sent after the commit: a job told twice would run twice, one that is lost is tried again."""

    def add(self, number: int, agent: UUID, subtopic: bytes, payload: bytes, received: int) -> None:
        """Take a message; raises `InvalidMessage`."""
        content, at = _content(payload), datetime.fromtimestamp(received / 1e6, UTC)
        if subtopic == NEXT:
            token = content.get("clientToken") if isinstance(content, dict) else None
            self._taken.append(_JobRequest(agent, strip_nul(token)[:TOKEN] if isinstance(token, str) else None, at))
            return
        try:
            job = UUID(subtopic.removeprefix(TOPIC).removesuffix(b"/update").decode())
            answer = jobs.parse_answer(content)
        except Invalid as exc:
            raise InvalidMessage("unknown_shape", f"{exc.path}: {exc}" if exc.path else str(exc)) from exc
        except ValueError as exc:
            raise InvalidMessage("bad_topic", "jobs/{uuid}/update or jobs/start-next") from exc
        self._taken.append(_Answer(number, agent, job, answer, at))

    @property
    def agents(self) -> set[UUID]:
        """Who spoke."""
        return {one.agent for one in self._taken}

    async def write(self, tx: Tx) -> dict[int, InvalidMessage]:
        """Apply them in their order; returns those that speak of a job the agent was never given."""
        refused: dict[int, InvalidMessage] = {}
        for one in self._taken:
            if isinstance(one, _JobRequest):
                if datetime.now(UTC) - one.at < timedelta(seconds=ASKED):  # nobody waits for the answer any more
                    self.replies.append(await self._next(tx, one))
                continue
            try:
                await agent_jobs.record_answer(tx, self._tenant, one.agent, one.job, one.answer, one.at)
            except NotFound:
                refused[one.number] = InvalidMessage("unknown_job")
            except Conflict:
                continue  # it was told before, or came too late; the timeline has how it ended
        return refused

    async def _next(self, tx: Tx, asked: _JobRequest) -> OutboundMessage:
        now = datetime.now(UTC)
        topic = f"{agent_topic(self._tenant, AgentId(asked.agent))}/{NEXT.decode()}"
        found = await agent_jobs.claim(tx, self._tenant, asked.agent, token=asked.token)
        if found is None:
            return OutboundMessage(
                f"{topic}/rejected", job_messages.rejected(asked.token, now), now.timestamp() + ASKED
            )
        facts = (found.job_id, found.job_document, found.queued_at, found.started_at, found.execution_number)
        return OutboundMessage(
            f"{topic}/accepted", job_messages.accepted(*facts, asked.token), now.timestamp() + ASKED
        )


def _content(payload: bytes) -> Any:
    """The message; a question may be empty."""
    if not payload:
        return {}
    document, is_msgpack = codec.unwrap(payload, cap=codec.PAYLOAD_CAP)
    return codec.decode(document, is_msgpack, object)
