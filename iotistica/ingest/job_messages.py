"""Messages of agents about jobs: reports on a job's progress, and requests for the next job."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from iotistica.domain import codec
from iotistica.domain.control import job_messages, jobs
from iotistica.domain.control.jobs import JobAnswer
from iotistica.domain.delivery import topics
from iotistica.domain.documents import strip_nul
from iotistica.domain.ids import AgentId, TenantId, agent_topic
from iotistica.errors import Conflict, Invalid, InvalidMessage, NotFound
from iotistica.storage.control import agent_jobs
from iotistica.storage.delivery.outbound import OutboundMessage
from iotistica.storage.postgres import Tx

TOPIC: Final = b"jobs/"
NEXT: Final = b"jobs/start-next"
ASKED: Final = 60.0  # seconds after a request within which an answer is still sent
TOKEN: Final = 64  # characters of a client token that are kept


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
    """The job messages of one tenant's agents in one transaction, in order."""

    def __init__(self, tenant: TenantId) -> None:
        self._tenant = tenant
        self._messages: list[_Answer | _JobRequest] = []
        self.replies: list[OutboundMessage] = []
        """To send after the commit: a job sent twice would run twice; one whose reply is lost is tried again."""

    def add(self, number: int, agent: UUID, subtopic: bytes, payload: bytes, received: int) -> None:
        """Collect message `number` of the entry, received at `received` us; raises `InvalidMessage`."""
        content, at = _content(payload), datetime.fromtimestamp(received / 1e6, UTC)
        if subtopic == NEXT:
            token = content.get("clientToken") if isinstance(content, dict) else None
            self._messages.append(
                _JobRequest(agent, strip_nul(token)[:TOKEN] if isinstance(token, str) else None, at)
            )
            return
        try:
            job = UUID(subtopic.removeprefix(TOPIC).removesuffix(b"/update").decode())
            answer = jobs.parse_answer(content)
        except Invalid as exc:
            raise InvalidMessage("unknown_shape", f"{exc.path}: {exc}" if exc.path else str(exc)) from exc
        except ValueError as exc:
            raise InvalidMessage("unknown_topic", topics.why_unknown(subtopic)) from exc
        self._messages.append(_Answer(number, agent, job, answer, at))

    @property
    def agents(self) -> set[UUID]:
        """The agents that sent these messages."""
        return {message.agent for message in self._messages}

    async def write(self, tx: Tx) -> dict[int, InvalidMessage]:
        """Apply the messages in order; returns, by number, those about a job that the agent was never given."""
        refused: dict[int, InvalidMessage] = {}
        for message in self._messages:
            if isinstance(message, _JobRequest):
                if datetime.now(UTC) - message.at < timedelta(seconds=ASKED):  # later, the agent no longer waits
                    self.replies.append(await self._next(tx, message))
                continue
            try:
                await agent_jobs.record_answer(
                    tx, self._tenant, message.agent, message.job, message.answer, message.at
                )
            except NotFound:
                refused[message.number] = InvalidMessage("unknown_job")
            except Conflict:
                continue  # reported before, or too late; the timeline has the job's end
        return refused

    async def _next(self, tx: Tx, request: _JobRequest) -> OutboundMessage:
        now = datetime.now(UTC)
        topic = f"{agent_topic(self._tenant, AgentId(request.agent))}/{NEXT.decode()}"
        job = await agent_jobs.claim(tx, self._tenant, request.agent, token=request.token)
        if job is None:
            return OutboundMessage(
                f"{topic}/rejected", job_messages.rejected(request.token, now), now.timestamp() + ASKED
            )
        facts = (job.job_id, job.job_document, job.queued_at, job.started_at, job.execution_number)
        return OutboundMessage(
            f"{topic}/accepted", job_messages.accepted(*facts, request.token), now.timestamp() + ASKED
        )


def _content(payload: bytes) -> Any:
    """Return the decoded message; a request with an empty payload counts as an empty object."""
    if not payload:
        return {}
    document, is_msgpack = codec.unwrap(payload, cap=codec.PAYLOAD_CAP)
    return codec.decode(document, is_msgpack, object)
