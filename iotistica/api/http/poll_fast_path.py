"""A fast path for the polls of agents, which answers them from memory without the web framework.

Ten thousand agents poll again and again for a target that has not changed. A poll that memory cannot answer with
certainty goes through the guard and the route, like every other request. The answers come from
`storage/agents/poll_answer_cache.py`, also while PostgreSQL is unavailable.
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
from iotistica.storage.agents.poll_answer_cache import PollAnswerCache
from iotistica.storage.agents.poll_counts import PollCounts

PATH: Final = re.compile(r"/api/v1/device/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/state")


class PollFastPath:
    """An ASGI application that answers polls and passes other requests on to another application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        agent_cache: AgentCache,
        poll_answer_cache: PollAnswerCache,
        poll_counts: PollCounts,
        key: bytes,
    ) -> None:
        """`key` is the server's key, with which secrets are digested."""
        self._app = app
        self._agent_cache = agent_cache
        self._poll_answer_cache = poll_answer_cache
        self._poll_counts = poll_counts
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a poll from memory, or pass the request on."""
        answer = self._answer_from_memory(scope) if scope.get("method") == "GET" else None
        if answer is None:
            await self._app(scope, receive, send)
        else:
            await _send(send, *answer)

    def _answer_from_memory(self, scope: Scope) -> tuple[int, str, bytes] | None:
        match = PATH.fullmatch(scope["path"])
        if match is None:
            return None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        holder = self._holder(headers)
        if holder is None or holder.agent_uuid != UUID(match[1]):
            return None
        return self._answer(holder, headers.get("if-none-match"))

    def _holder(self, headers: dict[str, str]) -> KeyHolder | None:
        """Return the agent that polls, if its key is in the cache and the agent is active."""
        if not self._agent_cache.is_current:
            return None
        try:
            credential = credential_of(headers)
        except Unauthorized:
            return None
        holder = self._agent_cache.key_holder(credentials.digest(self._key, credential))
        return holder if holder is not None and holder.state == "active" else None

    def _answer(self, holder: KeyHolder, if_none_match: str | None) -> tuple[int, str, bytes] | None:
        """Return the status, the ETag and the body; None if the current answer is not in memory."""
        current = self._poll_answer_cache.current_tag(holder.agent_uuid)
        if current is None:
            return None
        counter, tag = current
        modified = if_none_match is None or not etag_matches(if_none_match, tag)
        cached = self._poll_answer_cache.cached(holder.agent_uuid) if modified else None
        if modified and (cached is None or cached.etag != tag):
            return None
        self._poll_counts.add(holder.tenant_id, holder.agent_uuid, counter, modified=modified)
        return (200, tag, cached.body) if cached is not None else (304, tag, b"")


async def _send(send: Send, status: int, tag: str, body: bytes) -> None:
    headers = [(b"etag", tag.encode()), (b"cache-control", b"no-cache")]
    if status == 200:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
