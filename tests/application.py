"""The application without servers behind it, for tests that only look at its routes."""

import json
from collections.abc import Iterator
from typing import Any

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.serialization import encode_json

from iotistica.api import app
from iotistica.api.http.dependencies import ServerContext
from iotistica.domain.agents.broker_connection import BrokerAddress
from iotistica.settings import Settings

SERVED_BY = (
    *("database", "platform_database", "redis", "inbox", "process_health"),
    *("agent_cache", "poll_answer_cache", "poll_counts", "timeline_counts", "live_hub"),
)


def openapi() -> dict[str, Any]:
    """The OpenAPI document."""
    found: dict[str, Any] = json.loads(encode_json(_application().openapi_schema.to_schema()))
    return found


def http_routes() -> Iterator[tuple[str, HTTPRouteHandler]]:
    """The path and the handler of every HTTP route."""
    for route in _application().routes:
        for handler in getattr(route, "route_handlers", ()):
            if isinstance(handler, HTTPRouteHandler):
                yield route.path, handler


def _application() -> Litestar:
    broker = BrokerAddress(protocol="mqtt", host="h", port=1)
    context = ServerContext(settings=Settings(), key=bytes(32), broker=broker)
    nothing: Any = None
    return app.create(**dict.fromkeys(SERVED_BY, nothing), context=context, roles=[])
