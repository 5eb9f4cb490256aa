"""The cookie that keeps the dashboard logged in: it has the refresh token, and scripts cannot read it."""

from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from litestar import Request, Response
from litestar.datastructures import Cookie

from iotistica.api.access.session_views import Session
from iotistica.api.http.dependencies import ServerContext
from iotistica.domain.access.session_origin import is_own_page
from iotistica.domain.key_derivation import derive
from iotistica.errors import Forbidden

PATH: Final = "/api/v1/auth"  # the only routes that browsers send it to


def name(context: ServerContext) -> str:
    """Return the name of the cookie; two instances on one host have different ones, since cookies ignore ports."""
    return f"iotistica-{derive(context.key, 'session-cookie').hex()[:8]}"


def token(request: Request[Any, Any, Any], context: ServerContext) -> str | None:
    """Return the refresh token of the cookie; None without a cookie. Raises `Forbidden` for a foreign page."""
    found = request.cookies.get(name(context))
    if found is not None:
        check_page(request, context)
    return found


def check_page(request: Request[Any, Any, Any], context: ServerContext) -> None:
    """Raise `Forbidden` if a browser says that another site's page, or another port's, sends this request."""
    headers = request.headers
    own_hosts = (headers.get("host", ""), urlsplit(context.settings.site).netloc)
    if not is_own_page(headers.get("sec-fetch-site"), headers.get("origin"), own_hosts):
        raise Forbidden("The session cookie is for the dashboard's own page: use an access token or an API key.")


def answer(
    request: Request[Any, Any, Any], context: ServerContext, session: Session, *, cookie: bool, status: int = 200
) -> Response[Session]:
    """Return a new session as the answer: its refresh token in the body or, with `cookie`, only in the cookie."""
    if not cookie:
        return Response(session, status_code=status)
    check_page(request, context)
    seconds = context.settings.session_days * 86_400
    cookies = [_cookie(request, context, session.refresh_token or "", seconds)]
    return Response(msgspec.structs.replace(session, refresh_token=None), status_code=status, cookies=cookies)


def expired(request: Request[Any, Any, Any], context: ServerContext) -> Cookie:
    """Return the cookie that makes browsers delete theirs."""
    return _cookie(request, context, "", 0)


def _cookie(request: Request[Any, Any, Any], context: ServerContext, value: str, seconds: int) -> Cookie:
    is_https = request.url.scheme == "https" or context.settings.site.startswith("https://")
    return Cookie(
        key=name(context),
        value=value,
        path=PATH,
        max_age=seconds,
        httponly=True,
        samesite="strict",
        secure=is_https,
    )
