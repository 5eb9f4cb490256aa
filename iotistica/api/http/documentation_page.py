"""The page for trying out the API, at /schema; all its files are served by this process, so it works offline."""

from pathlib import Path
from typing import Any, Final

from litestar import MediaType, Request, Response, get
from litestar.openapi.plugins import OpenAPIRenderPlugin
from litestar.params import FromPath
from openapi_ui_bundles import swagger_ui

from iotistica.domain.access.permissions import PUBLIC
from iotistica.errors import NotFound

ASSETS: Final = "/schema/assets"
FILES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The content security policy of the page; Swagger UI sets styles inline."""
START: Final = b"""SwaggerUIBundle({
  url: '/schema/openapi.json',
  dom_id: '#api',
  deepLinking: true,
  showExtensions: true,
  showCommonExtensions: true,
});
"""
PAGE: Final = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Iotistica API</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="{ASSETS}/swagger-ui.css"></head>
<body><div id="api"></div><script src="{ASSETS}/swagger-ui-bundle.js"></script>
<script src="{ASSETS}/start.js"></script></body></html>
""".encode()


class DocumentationPage(OpenAPIRenderPlugin):
    """Swagger UI with the OpenAPI document, which it loads."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return PAGE


@get(f"{ASSETS}/{{name:str}}", opt={"permission": PUBLIC}, include_in_schema=False, sync_to_thread=True)
def asset(name: FromPath[str]) -> Response[bytes]:
    """Return a file of the page."""
    if name == "start.js":
        return Response(START, media_type="text/javascript")
    if name not in FILES:
        raise NotFound
    return Response((Path(swagger_ui.static_path) / name).read_bytes(), media_type=FILES[name])


def page() -> DocumentationPage:
    """Return the plugin that serves the page at the root of the documentation."""
    return DocumentationPage(path="/", media_type=MediaType.HTML)
