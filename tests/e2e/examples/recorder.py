"""Records requests and answers as examples: values that differ in every run are replaced by fixed ones."""

import re
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import httpx

TIME = "2026-11-27T12:00:00Z"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)")
_SECRETS = (
    (re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+"), "eyJhbGciOiJIUzI1NiIs…"),
    (re.compile(r"(iot[a-z]+_live_|iot[a-z]+_|prov_)[\w-]{20,}"), r"\1…"),
    (re.compile(r"msg_[\w-]{22}"), "msg_Pzs0usrQgHuZJN1WlFj9kw"),
    (re.compile(r"(?<![\w/])[\w-]{43}(?![\w-])"), "a-generated-password"),
    (re.compile(r"http://127\.0\.0\.1:\d{4,5}"), "$SITE"),  # of the dashboard
    (re.compile(r"127\.0\.0\.1:\d{4,5}"), "127.0.0.1:3002"),
    (re.compile(r"\A[0-9a-f]{12}\Z"), "a1b2c3d4e5f6"),
    (re.compile(r"(?<=/)[\w-]{8}(?=/a/|/u/)|(?<=^)[\w-]{8}(?=/a/|/u/)"), "obLD1OX2"),
    (re.compile(r"(?<=/a/)[\w-]{22}"), "VQ6EAOKbQdSnFkRmVUQAAA"),
    (re.compile(r"\b\d{13}-\d+\b"), "1795780800000-0"),
)
ROWS = 2  # of a list that are shown
LONGEST = 400  # characters of a text that are shown
KEYS = 12  # of an object that is used as a map

Example = dict[str, Any]


class Recorder:
    """Sends requests, checks that they succeed, and keeps the first example of each route."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._uuids: dict[str, str] = {}
        self._clients: list[httpx.Client] = []
        self.examples: dict[str, Example] = {}

    def __call__(
        self,
        client: httpx.Client,
        route: str,
        body: Any = None,
        *,
        path: dict[str, str] | None = None,
        query: dict[str, Any] | None = None,
        status: int = 200,
    ) -> Any:
        """Send a request to a route such as `GET /agents/{agent}` and return the content of the answer."""
        method, _, template = route.partition(" ")
        url = template.format(**(path or {}))
        root = self._base if template.startswith("/api") or template in ROOT else f"{self._base}/api/v1"
        answer = client.request(method, root + url, params=query, json=body)
        assert answer.status_code == status, f"{route}: {answer.status_code} {answer.text}"
        kind = answer.headers.get("content-type", "").partition(";")[0]
        content = answer.json() if kind.endswith("json") else answer.text
        whole = template if template in ROOT else f"/api/v1{template}"
        used = {name: value for name, value in (path or {}).items() if f"{{{name}}}" in template}
        is_public = "authorization" not in client.headers
        example: Example = {"public": is_public, "path": used, "query": query or {}, "body": body, "status": status}
        self.examples.setdefault(
            f"{method} {whole}", self._fixed({**example, "answer": content if answer.content else None})
        )
        return content

    def client(self, token: str = "") -> httpx.Client:
        """Return a client with this access token, or without any; `close` closes it."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._clients.append(httpx.Client(headers=headers, timeout=30))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _fixed(self, value: Any) -> Any:
        if isinstance(value, dict):
            kept = list(value.items())[:KEYS] if _is_map(value) else value.items()
            return {self._text(key): self._fixed(each) for key, each in kept}
        if isinstance(value, list):
            return [self._fixed(each) for each in value[:ROWS]]
        if isinstance(value, str):
            return self._text(value)
        return round(value, 3) if isinstance(value, float) else value

    def _text(self, text: str) -> str:
        text = _UUID.sub(lambda match: self._uuid(match[0]), text)
        text = _TIME.sub(TIME, text)
        for pattern, instead in _SECRETS:
            text = pattern.sub(instead, text)
        return text if len(text) <= LONGEST else text[:LONGEST] + "…"

    def _uuid(self, found: str) -> str:
        number = len(self._uuids) + 1
        return self._uuids.setdefault(found, str(UUID(bytes=uuid5(NAMESPACE_OID, f"{number}").bytes, version=4)))


def _is_map(value: dict[str, Any]) -> bool:
    return len(value) > 3 * KEYS


ROOT = ("/", "/health", "/ready", "/metrics")
"""Routes that are not under /api/v1."""


def shape(value: Any) -> Any:
    """Return the keys of an example without its values; lists are as their first row."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None
