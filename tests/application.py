"""The application without servers behind it, for tests that only look at its routes."""

from collections.abc import Iterator
from typing import Any

from litestar.handlers import HTTPRouteHandler

from iotistica.api import app
from iotistica.api.http.dependencies import ServerContext
from iotistica.domain.agents.broker_connection import BrokerAddress
from iotistica.settings import Settings

SERVED_BY = (
    *("database", "platform_database", "redis", "inbox", "process_health"),
    *("agent_cache", "poll_answer_cache", "poll_counts", "timeline_counts", "live_hub"),
)


def http_routes() -> Iterator[tuple[str, HTTPRouteHandler]]:
    """The path and the handler of every HTTP route."""
    broker = BrokerAddress(protocol="mqtt", host="h", port=1)
    context = ServerContext(settings=Settings(), key=bytes(32), broker=broker)
    nothing: Any = None
    made = app.create(**dict.fromkeys(SERVED_BY, nothing), context=context, roles=[])
    for route in made.routes:
        for handler in getattr(route, "route_handlers", ()):
            if isinstance(handler, HTTPRouteHandler):
                yield route.path, handler
