"""The Litestar applications: the whole API, and the few routes of a process without it."""

from pathlib import Path
from typing import Final

from litestar import Litestar, Router, get
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import FromPath
from litestar.response import File
from openapi_ui_bundles import swagger_ui

from iotistica import __version__
from iotistica.api.access import api_keys, invitations, login, passwords, users
from iotistica.api.agents import (
    agents,
    broker_auth,
    fleets,
    identities,
    key_exchange,
    logs,
    mqtt_users,
    provisioning,
    provisioning_keys,
    reported_state,
    tags,
)
from iotistica.api.agents.poll import poll
from iotistica.api.control import agent_jobs, apps, endpoints, job_templates, jobs, targets
from iotistica.api.delivery import ingestion, live, web_socket
from iotistica.api.history import audit
from iotistica.api.http import errors, health
from iotistica.api.http.access_tokens import Tokens
from iotistica.api.http.authentication import Doorman
from iotistica.api.http.broker_sync import Rendering
from iotistica.api.http.dependencies import Signer, Site
from iotistica.api.http.guard import Guard
from iotistica.api.http.request_inflation import Inflation
from iotistica.api.telemetry import catalog, erasures, readings
from iotistica.domain.access.permissions import PUBLIC
from iotistica.domain.agents.broker_passwords import derive
from iotistica.errors import NotFound
from iotistica.process_health import Vitals
from iotistica.storage.access.rate_limits import Limits
from iotistica.storage.agents.agent_cache import Roster
from iotistica.storage.agents.poll_answers import Counts, Polls
from iotistica.storage.delivery.inbox import Inbox
from iotistica.storage.delivery.live_hub import Hub
from iotistica.storage.history.timeline_counts import Tally
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

BODY_CAP: Final = 2 << 20  # bytes of a request body, inflated; some routes take less or more
ASSETS: Final = "/schema/assets"


@get("/", opt={"permission": PUBLIC}, tags=["ops"])
async def service() -> dict[str, str]:
    """What this is and where to go on."""
    return {
        "service": "iotistica",
        "version": __version__,
        "status": "ok",
        "apiBase": "/api/v1",
        "documentation": "/schema",
        "health": "/health",
    }


@get("/.well-known/jwks.json", opt={"permission": PUBLIC}, tags=["auth"])
async def jwks(tokens: Signer) -> dict[str, list[dict[str, str]]]:
    """The public keys that access tokens are checked by."""
    return {"keys": tokens.jwks}


FILES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "swagger-ui.css": "text/css",
}


@get(f"{ASSETS}/{{name:str}}", opt={"permission": PUBLIC}, include_in_schema=False, sync_to_thread=True)
def asset(name: FromPath[str]) -> File:
    """What the page of the API is made of; from here, so that it works offline."""
    if name not in FILES:
        raise NotFound
    return File(
        Path(swagger_ui.static_path) / name,
        media_type=FILES[name],
        content_disposition_type="inline",
        filename=name,
    )


def create(
    *,
    database: Database,
    lookups: Database,
    redis: Redis,
    inbox: Inbox,
    vitals: Vitals,
    site: Site,
    roster: Roster,
    polls: Polls,
    counts: Counts,
    tally: Tally,
    hub: Hub,
    roles: list[str],
) -> Litestar:
    """The whole API; `database` sees one tenant at a time, `lookups` all."""
    tokens = Tokens(derive(site.key, "access-token"), site.settings.token_key_file)
    limits = Limits(redis)
    doorman = Doorman(lookups, tokens, site.key, roster)
    guard = Guard(doorman, limits, site.settings)
    api = Router(
        "/api/v1",
        route_handlers=[
            *(login.router, passwords.router, invitations.router, users.router, api_keys.router),
            *(
                provisioning.router,
                key_exchange.router,
                reported_state.report,
                logs.agent_facing,
                logs.router,
                poll,
                provisioning_keys.router,
                provisioning_keys.alias,
                identities.router,
            ),
            *(
                agents.router,
                targets.agents_router,
                targets.fleets_router,
                apps.agents_router,
                apps.fleets_router,
                endpoints.router,
                tags.router,
                fleets.router,
                job_templates.router,
                jobs.router,
                agent_jobs.router,
                live.live,
                readings.router,
                catalog.router,
                erasures.router,
                ingestion.router,
                mqtt_users.router,
                audit.router,
            ),
        ],
    )
    given = {
        "database": database,
        "inbox": inbox,
        "vitals": vitals,
        "tokens": tokens,
        "limits": limits,
        "site": site,
    }
    given["rendering"] = Rendering(lookups)
    given |= {"polls": polls, "counts": counts, "tally": tally, "hub": hub}
    given["doorman"] = doorman
    return Litestar(
        route_handlers=[
            service,
            *health.handlers,
            api,
            asset,
            broker_auth.router,
            web_socket.sockets,
            *([jwks] if tokens.jwks else []),
        ],
        guards=[guard],
        middleware=[Inflation()],
        dependencies=_dependencies(lookups=lookups, redis=redis, roles=roles, **given),
        exception_handlers={Exception: errors.answer},
        openapi_config=OpenAPIConfig(
            title="Iotistica",
            version=__version__,
            openapi_router=Router("/schema", route_handlers=[], opt={"permission": PUBLIC}),
            use_handler_docstrings=True,
            components=Components(
                security_schemes={
                    "bearer": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT"),
                    "agent": SecurityScheme(type="apiKey", name="X-Device-API-Key", security_scheme_in="header"),
                }
            ),
            security=[{"bearer": []}, {"agent": []}],
            render_plugins=[
                SwaggerRenderPlugin(
                    js_url=f"{ASSETS}/swagger-ui-bundle.js",
                    standalone_preset_js_url=f"{ASSETS}/swagger-ui-standalone-preset.js",
                    css_url=f"{ASSETS}/swagger-ui.css",
                    favicon='<link rel="icon" href="data:,">',  # the default one lies on a CDN
                    path="/",
                )
            ],
        ),
        cors_config=CORSConfig(allow_origins=[]),
        request_max_body_size=BODY_CAP,
        logging_config=None,
    )


def create_ops(*, lookups: Database, redis: Redis | None, roles: list[str], vitals: Vitals) -> Litestar:
    """Health, readiness and metrics alone."""
    return Litestar(
        route_handlers=[*health.handlers],
        dependencies=_dependencies(lookups=lookups, redis=redis, roles=roles, vitals=vitals),
        exception_handlers={Exception: errors.answer},
        openapi_config=None,
        logging_config=None,
    )


def _dependencies(**given: object) -> dict[str, Provide]:
    return {name: _given(value) for name, value in given.items()}


def _given(value: object) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)
