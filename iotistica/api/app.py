"""The Litestar applications: the whole API, and the few routes of a process without it."""

from pathlib import Path
from typing import Final

from litestar import Litestar, Router, get
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import FromPath
from litestar.response import File
from openapi_ui_bundles import swagger_ui

from iotistica import __version__
from iotistica.api import agents, auth, errors, ingestion, ops, readings
from iotistica.api.auth import PUBLIC, guard
from iotistica.api.tokens import Tokens
from iotistica.errors import NotFound
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


def create(*, database: Database, redis: Redis, key: bytes, roles: list[str]) -> Litestar:
    """The whole API; `key` signs access tokens."""
    tokens = Tokens(key)
    api = Router(
        "/api/v1",
        route_handlers=[auth.router, agents.router, readings.router, ingestion.router],
        guards=[guard],
    )
    return Litestar(
        route_handlers=[service, *ops.handlers, api, asset],
        dependencies={**_dependencies(database, redis, roles), "tokens": _given(tokens)},
        exception_handlers={Exception: errors.answer},
        openapi_config=OpenAPIConfig(
            title="Iotistica",
            version=__version__,
            path="/schema",
            use_handler_docstrings=True,
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
