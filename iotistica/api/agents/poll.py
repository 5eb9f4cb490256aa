"""The poll: an agent's request for its target state."""

from typing import Final
from uuid import UUID

from litestar import Response, get
from litestar.params import FromPath

from iotistica.api.http.dependencies import ApiRequest, PollAnswerCacheDep, PollCountsDep
from iotistica.domain.access.permissions import AGENT
from iotistica.domain.control.targets import etag_matches

_HEADERS: Final = {"Cache-Control": "no-cache"}


@get("/device/{agent:uuid}/state", opt={"permission": AGENT, "unlimited": True}, tags=["agent-facing"])
async def poll(
    request: ApiRequest, agent: FromPath[UUID], poll_answer_cache: PollAnswerCacheDep, poll_counts: PollCountsDep
) -> Response[bytes]:
    """Return the target state of an agent, `{"<uuid>": {apps, config, version, …}}`.

    Answers 304 if `If-None-Match` has its ETag. While PostgreSQL or Redis is unavailable, an agent that has had an
    answer before gets the last known one.
    """
    tenant, known_tags = request.auth.tenant, request.headers.get("if-none-match")
    answer = await poll_answer_cache.answer_for(tenant, agent)
    modified = not known_tags or not etag_matches(known_tags, answer.etag)
    poll_counts.add(tenant, agent, answer.counter, modified=modified)
    headers = {"ETag": answer.etag, **_HEADERS}
    if not modified:
        return Response(b"", status_code=304, headers=headers)
    return Response(answer.body, status_code=200, media_type="application/json", headers=headers)
