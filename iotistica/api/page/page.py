"""Routes of the dashboard: its one HTML page at every path that it shows, and the files that the page loads."""

import base64
import hashlib
from collections.abc import Callable
from html import escape
from typing import Any, Final

from litestar import Request, Response, get
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from iotistica import __version__
from iotistica.api.http.compression import preferred_coding
from iotistica.api.page.built_page import BuildStatus, BuiltPage, PageFile
from iotistica.domain.access.permissions import PUBLIC
from iotistica.errors import NotFound

PATHS: Final = (
    *("agents", "explore", "dashboards", "incidents", "rules", "jobs", "enrolment", "operations", "settings"),
    *("login", "invitation", "password"),
)
"""The first parts of the dashboard's paths; `web/src/routes.ts` has the pages behind them."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types svelte-trusted-html iotistica-worker"
)
"""The content security policy: nothing but the page's own files runs, and no request leaves the machine."""
IMMUTABLE: Final = "public, max-age=31536000, immutable"
RELOAD_SECONDS: Final = 2  # until a browser looks again whether the page is built
STYLE: Final = (
    "html{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:20vh auto;"
    "padding:0 1.5rem}h1{font-size:1.4rem;font-weight:600}code,pre{font:14px/1.5 ui-monospace,monospace;"
    "white-space:pre-wrap}"
)
STYLE_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
API_LINK: Final = '<p>Everything else works: the API is described at <a href="/schema">/schema</a>.</p>'


def routes(page: BuiltPage) -> list[ControllerRouterHandler]:
    """Return the routes that serve a built page."""
    paths = [path for name in PATHS for path in (f"/{name}", f"/{name}/{{rest:path}}")]

    @get("/", opt={"permission": PUBLIC}, tags=["ops"])
    async def service(request: Request[Any, Any, Any]) -> Response[Any]:
        """Return the dashboard to browsers, and to others the name, version and paths of the service."""
        if accepts_html(request):
            return _html(request, page)
        about = {
            "service": "iotistica",
            "version": __version__,
            "status": "ok",
            "apiBase": "/api/v1",
            "documentation": "/schema",
            "health": "/health",
        }
        return Response(about, headers={"Vary": "Accept"})

    @get(paths, opt={"permission": PUBLIC}, include_in_schema=False)
    async def show(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Return the dashboard, which shows the page of this path."""
        return _html(request, page)

    @get("/assets/{name:str}", opt={"permission": PUBLIC}, include_in_schema=False)
    async def asset(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        """Return a file of the dashboard; its name contains a hash of its content."""
        found = page.file(f"assets/{name}")
        if found is None:
            raise NotFound
        # The worker obeys the policy of its own file.
        return _answer(request, found, {"Cache-Control": IMMUTABLE, "Content-Security-Policy": POLICY})

    return [service, show, asset]


def accepts_html(request: Request[Any, Any, Any]) -> bool:
    """Whether the client asks for HTML by name, as browsers do and programs do not."""
    return "text/html" in request.headers.get("accept", "")


def _html(request: Request[Any, Any, Any], page: BuiltPage) -> Response[bytes]:
    index = page.file("index.html")
    if index is not None:
        headers = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
        return _answer(request, index, headers)
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; frame-ancestors 'none'",
        "Vary": "Accept",
    }
    content = TEXTS[(status := page.status()).state](status)
    return Response(_waiting_page(content), media_type="text/html", headers=headers)


def _answer(request: Request[Any, Any, Any], file: PageFile, headers: dict[str, str]) -> Response[bytes]:
    """Return a file in the coding that the client prefers, or 304."""
    coding = preferred_coding(request.headers.get("accept-encoding", "")) or ""
    coding = coding if coding in file.bodies else ""
    etag = f'"{file.etag}{"-" if coding else ""}{coding}"'
    headers = {**headers, "ETag": etag, "Vary": "Accept, Accept-Encoding"}
    if request.headers.get("if-none-match") == etag:
        return Response(b"", status_code=304, headers=headers, media_type=file.media_type)
    if coding:
        headers["Content-Encoding"] = coding
    return Response(file.bodies[coding], media_type=file.media_type, headers=headers)


def _building(status: BuildStatus) -> str:
    return f"<h1>The dashboard is being built</h1><p>{escape(status.detail)} It appears here by itself.</p>"


def _failed(status: BuildStatus) -> str:
    return f"<h1>The dashboard could not be built</h1><pre>{escape(status.detail)}</pre>"


def _absent(_: BuildStatus) -> str:
    return (
        "<h1>The dashboard is not built</h1><p>In a checkout, <code>./run serve</code> builds it, and so does"
        " <code>python3 web/build.py</code>. An installed package contains it.</p>"
    )


TEXTS: Final[dict[str, Callable[[BuildStatus], str]]] = {
    "building": _building,
    "failed": _failed,
    "absent": _absent,
}


def _waiting_page(content: str) -> bytes:
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">\
<meta http-equiv="refresh" content="{RELOAD_SECONDS}"><title>Iotistica</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{content}{API_LINK}</body></html>'.encode()
