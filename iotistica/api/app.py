"""Creates the Litestar applications: the whole API, and the health routes of processes without the API."""

from typing import Final

from litestar import Litestar, Router, get
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

from iotistica import __version__
from iotistica.api import access, agents, alerts, control, delivery, history, telemetry
from iotistica.api import page as page_
from iotistica.api.agents import broker_auth
from iotistica.api.delivery import web_socket
from iotistica.api.http import cors, documentation_page, errors, health
from iotistica.api.http.access_tokens import AccessTokens
from iotistica.api.http.authentication import Authenticator
from iotistica.api.http.broker_sync import BrokerSync
from iotistica.api.http.dependencies import AccessTokensDep, ServerContext
from iotistica.api.http.examples import ExamplesJson
from iotistica.api.http.guard import Guard
from iotistica.api.http.overviews import Overviews
from iotistica.api.http.request_inflation import RequestInflation
from iotistica.api.page import page
from iotistica.api.page.built_page import BuiltPage, page_folders
from iotistica.domain.access.permissions import PUBLIC
from iotistica.domain.key_derivation import derive
from iotistica.process_health import ProcessHealth
from iotistica.storage.access.rate_limits import RateLimiter
from iotistica.storage.agents.agent_cache import AgentCache
from iotistica.storage.agents.poll_answer_cache import PollAnswerCache
from iotistica.storage.agents.poll_counts import PollCounts
from iotistica.storage.delivery.inbox import Inbox
from iotistica.storage.delivery.live_hub import LiveHub
from iotistica.storage.history.timeline_counts import TimelineCounts
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

BODY_CAP: Final = 2 << 20  # bytes of a request body after inflation; some routes have another limit


@get("/.well-known/jwks.json", opt={"permission": PUBLIC}, tags=["auth"])
async def jwks(access_tokens: AccessTokensDep) -> dict[str, list[dict[str, str]]]:
    """Return the public keys (JWKS) that verify access tokens."""
    return {"keys": access_tokens.jwks}


def create(
    *,
    database: Database,
    platform_database: Database,
    redis: Redis,
    inbox: Inbox,
    process_health: ProcessHealth,
    context: ServerContext,
    agent_cache: AgentCache,
    poll_answer_cache: PollAnswerCache,
    poll_counts: PollCounts,
    timeline_counts: TimelineCounts,
    live_hub: LiveHub,
    roles: list[str],
) -> Litestar:
    """Create the whole API; `database` sees one tenant at a time, `platform_database` sees all tenants."""
    access_tokens = AccessTokens(derive(context.key, "access-token"), context.settings.token_key_file)
    rate_limiter = RateLimiter(redis)
    authenticator = Authenticator(platform_database, access_tokens, context.key, agent_cache)
    guard = Guard(authenticator, rate_limiter, context.settings)
    areas = (access, agents, alerts, control, delivery, history, page_, telemetry)
    api = Router("/api/v1", route_handlers=[route for area in areas for route in area.ROUTES])
    values = {
        "database": database,
        "inbox": inbox,
        "process_health": process_health,
        "access_tokens": access_tokens,
        "rate_limiter": rate_limiter,
        "context": context,
    }
    values["broker_sync"] = BrokerSync(platform_database)
    values |= {
        "poll_answer_cache": poll_answer_cache,
        "poll_counts": poll_counts,
        "timeline_counts": timeline_counts,
        "live_hub": live_hub,
    }
    values["authenticator"] = authenticator
    values["overviews"] = Overviews(redis, process_health)
    return Litestar(
        route_handlers=[
            *page.routes(BuiltPage(*page_folders())),
            *health.handlers,
            api,
            documentation_page.asset,
            broker_auth.router,
            web_socket.sockets,
            *([jwks] if access_tokens.jwks else []),
        ],
        guards=[guard],
        middleware=[RequestInflation()],
        dependencies=_dependencies(platform_database=platform_database, redis=redis, roles=roles, **values),
        exception_handlers={Exception: errors.problem_response},
        openapi_config=OpenAPIConfig(
            title="Iotistica",
            version=__version__,
            openapi_router=Router(
                "/schema",
                route_handlers=[],
                opt={"permission": PUBLIC},
                response_headers={"Content-Security-Policy": documentation_page.POLICY},
            ),
            use_handler_docstrings=True,
            components=Components(
                security_schemes={
                    "bearer": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT"),
                    "agent": SecurityScheme(type="apiKey", name="X-Device-API-Key", security_scheme_in="header"),
                    "integration": SecurityScheme(type="apiKey", name="X-API-Key", security_scheme_in="header"),
                }
            ),
            security=[{"bearer": []}, {"integration": []}, {"agent": []}],
            render_plugins=[
                ExamplesJson(),
                documentation_page.page(),
            ],
        ),
        cors_config=cors.config(context.settings),
        request_max_body_size=BODY_CAP,
        logging_config=None,
    )


def create_ops(
    *, platform_database: Database, redis: Redis | None, roles: list[str], process_health: ProcessHealth
) -> Litestar:
    """Create an application with only the routes for health, readiness and metrics."""
    return Litestar(
        route_handlers=[*health.handlers],
        dependencies=_dependencies(
            platform_database=platform_database, redis=redis, roles=roles, process_health=process_health
        ),
        exception_handlers={Exception: errors.problem_response},
        openapi_config=None,
        logging_config=None,
    )


def _dependencies(**values: object) -> dict[str, Provide]:
    return {name: _provide(value) for name, value in values.items()}


def _provide(value: object) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)
