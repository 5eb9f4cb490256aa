"""The poll: an agent asks what it is to be."""

from typing import Final
from uuid import UUID

from litestar import Response, get
from litestar.params import FromPath

from iotistica.api.http.dependencies import ApiRequest, PollAnswersDep, PollCountsDep
from iotistica.domain.access.permissions import AGENT
from iotistica.domain.control.targets import etag_matches

_HEADERS: Final = {"Cache-Control": "no-cache"}


@get("/device/{agent:uuid}/state", opt={"permission": AGENT, "unlimited": True}, tags=["agent-facing"])
async def poll(
    request: ApiRequest, agent: FromPath[UUID], poll_answers: PollAnswersDep, poll_counts: PollCountsDep
) -> Response[bytes]:
    """What the agent is to be: `{"<uuid>": {apps, config, version, …}}`; 304 if it names the tag that this has.

    Whatever passing fault there is, an agent that was told something is told that again.
    """
    tenant, known = request.auth.tenant, request.headers.get("if-none-match")
    sent = await poll_answers.answer_for(tenant, agent)
    modified = not known or not etag_matches(known, sent.etag)
    poll_counts.add(tenant, agent, sent.counter, modified=modified)
    headers = {"ETag": sent.etag, **_HEADERS}
    if not modified:
        return Response(b"", status_code=304, headers=headers)
    return Response(sent.body, status_code=200, media_type="application/json", headers=headers)
