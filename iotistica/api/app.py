"""The Litestar applications: the whole API, and the few routes of a process without it."""

from typing import Final

from litestar import Litestar, Router, get
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.static_files import create_static_files_router
from openapi_ui_bundles import swagger_ui

from iotistica import __version__
from iotistica.api import agents, auth, errors, ingestion, ops, readings
from iotistica.api.auth import PUBLIC, guard
from iotistica.api.tokens import Tokens
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

BODY_CAP: Final = 16 << 20  # bytes of a request body
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


def create(*, database: Database, redis: Redis, key: bytes, roles: list[str]) -> Litestar:
    """The whole API; `key` signs access tokens."""
    tokens = Tokens(key)
    api = Router(
        "/api/v1",
        route_handlers=[auth.router, agents.router, readings.router, ingestion.router],
        guards=[guard],
    )
    assets = create_static_files_router(
        path=ASSETS,
        directories=[swagger_ui.static_path],
        opt={"permission": PUBLIC},
        include_in_schema=False,
    )
    return Litestar(
        route_handlers=[service, *ops.handlers, api, assets],
        dependencies={**_dependencies(database, redis, roles), "tokens": _given(tokens)},
        exception_handlers={Exception: errors.answer},
        openapi_config=OpenAPIConfig(
            title="Iotistica",
            version=__version__,
            path="/schema",
            components=Components(
                security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")}
            ),
            security=[{"bearer": []}],
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
        state=State({"tokens": tokens}),
    )


def create_ops(*, database: Database, redis: Redis, roles: list[str]) -> Litestar:
    """Health, readiness and metrics alone."""
    return Litestar(
        route_handlers=[*ops.handlers],
        dependencies=_dependencies(database, redis, roles),
        exception_handlers={Exception: errors.answer},
        openapi_config=None,
        logging_config=None,
    )


def _dependencies(database: Database, redis: Redis, roles: list[str]) -> dict[str, Provide]:
    return {"database": _given(database), "redis": _given(redis), "roles": _given(roles)}


def _given(value: object) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)
