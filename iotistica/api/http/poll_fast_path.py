"""The shortcut of polls: what memory knows for certain is answered before any framework looks at it.

Ten thousand agents ask again and again what has not changed. Whatever is not certain takes the whole way, through
the guard and the route, as every other request does.
"""

import re
from typing import Final
from uuid import UUID

from litestar.types import ASGIApp, Receive, Scope, Send

from iotistica.api.http.authentication import credential_of
from iotistica.domain.access import credentials
from iotistica.domain.control.targets import etag_matches
from iotistica.errors import Unauthorized
from iotistica.storage.agents.agent_cache import AgentCache
from iotistica.storage.agents.agent_keys import KeyHolder
from iotistica.storage.agents.poll_answers import PollAnswers
from iotistica.storage.agents.poll_counts import PollCounts

PATH: Final = re.compile(r"/api/v1/device/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/state")


class PollFastPath:
    """An application before another one."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        agent_cache: AgentCache,
        poll_answers: PollAnswers,
        poll_counts: PollCounts,
        key: bytes,
    ) -> None:
        """`key` is the server's, which the digests of secrets are made with."""
        self._app = app
        self._agent_cache = agent_cache
        self._poll_answers = poll_answers
        self._poll_counts = poll_counts
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        answer = self._known(scope) if scope.get("method") == "GET" else None
        if answer is None:
            await self._app(scope, receive, send)
        else:
            await _send(send, *answer)

    def _known(self, scope: Scope) -> tuple[int, str, bytes] | None:
        found = PATH.fullmatch(scope["path"])
        if found is None:
            return None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        holder = self._holder(headers)
        if holder is None or holder.agent_uuid != UUID(found[1]):
            return None
        return self._answer(holder, headers.get("if-none-match"))

    def _holder(self, headers: dict[str, str]) -> KeyHolder | None:
        """The agent that asks, if it is known and has proved itself."""
        if not self._agent_cache.is_current:
            return None
        try:
            credential = credential_of(headers)
        except Unauthorized:
            return None
        holder = self._agent_cache.key_holder(credentials.digest(self._key, credential))
        return holder if holder is not None and holder.state == "active" else None

    def _answer(self, holder: KeyHolder, known: str | None) -> tuple[int, str, bytes] | None:
        """The status, the tag and the body; None if what the agent is told now is not in memory."""
        found = self._poll_answers.current_tag(holder.agent_uuid)
        if found is None:
            return None
        counter, tag = found
        modified = known is None or not etag_matches(known, tag)
        held = self._poll_answers.cached(holder.agent_uuid) if modified else None
        if modified and (held is None or held.etag != tag):
            return None
        self._poll_counts.add(holder.tenant_id, holder.agent_uuid, counter, modified=modified)
        return (200, tag, held.body) if held is not None else (304, tag, b"")


async def _send(send: Send, status: int, tag: str, body: bytes) -> None:
    headers = [(b"etag", tag.encode()), (b"cache-control", b"no-cache")]
    if status == 200:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
