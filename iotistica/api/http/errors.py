"""Maps exceptions to HTTP problem documents (RFC 9457), with an additional `error` for older clients."""

import math
import re
from typing import Any, Final, get_args

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from loguru import logger

from iotistica import errors
from iotistica.domain.access.permissions import AGENT

STATUS: Final[dict[type[Exception], tuple[int, str]]] = {
    errors.Invalid: (400, "Bad request"),
    errors.Unauthorized: (401, "Not logged in"),
    errors.Forbidden: (403, "Not allowed"),
    errors.NotFound: (404, "Not found"),
    errors.Outdated: (412, "Changed meanwhile"),
    errors.Conflict: (409, "Conflict"),
    errors.TooMany: (429, "Too many requests"),
    errors.Unavailable: (503, "Not available now"),
    errors.Full: (503, "Not available now"),
}
_AT: Final = re.compile(r" - at `\$\.?(.*)`$")
_FIELD: Final = re.compile(r"^Object (?:missing required|contains unknown) field `([^`]+)`$")
REGISTER_PATH: Final = "/api/v1/agent/register"  # called by agents that have no credential yet
TITLES: Final = {400: "Bad request", 401: "Not logged in", 404: "Not found", 405: "Method not allowed"}


def problem_response(request: Request[Any, Any, Any], exc: Exception) -> Response[dict[str, object]]:
    """Return the problem document for any exception."""
    status, title = next(
        (answer for kind in type(exc).__mro__ if (answer := STATUS.get(kind))), (500, "Internal error")
    )
    detail, extra = str(exc), dict[str, object]()
    if isinstance(exc, (RecursionError, UnicodeDecodeError)):
        status, title, detail = 400, "Bad request", "The body is nested too deeply or is not UTF-8."
    elif isinstance(exc, HTTPException):
        status, title, detail = exc.status_code, TITLES.get(exc.status_code, "Request refused"), exc.detail
        if isinstance(exc, ValidationException) and isinstance(exc.extra, list):
            fields = [_explained(request, e.get("key", ""), e.get("message", "")) for e in exc.extra]
            detail = (
                "; ".join(f"{e['path']}: {e['message']}" if e["path"] else e["message"] for e in fields) or detail
            )
            extra = {"errors": fields}
    elif isinstance(exc, errors.Invalid) and exc.path:
        extra = {"errors": [{"path": exc.path, "message": detail}]}
        if not _is_for_agents(request):
            detail = f"{exc.path}: {detail}"
    elif isinstance(exc, errors.Outdated):
        extra = {"current": exc.current}
    if status == 500:
        logger.opt(exception=exc).error("request failed")
        detail = "An internal error occurred; the log of the server has the details."
    headers = {503: {"Retry-After": "2"}, 401: {"WWW-Authenticate": "Bearer"}}.get(status, {})
    if isinstance(exc, errors.TooMany):
        headers = {"Retry-After": str(math.ceil(exc.seconds))}
    problem = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "error": detail,
        **extra,
    }
    return Response(problem, status_code=status, media_type="application/problem+json", headers=headers)


def _is_for_agents(request: Request[Any, Any, Any]) -> bool:
    """Whether agents call this route; the texts of its errors must not change."""
    handler = request.scope.get("route_handler")
    is_agents_own = handler is not None and handler.opt.get("permission") == AGENT
    return is_agents_own or request.url.path == REGISTER_PATH


def _explained(request: Request[Any, Any, Any], key: str, message: str) -> dict[str, str]:
    """Return the error of one parameter under its public name; for an enum, with the allowed values."""
    if key == "data" or _FIELD.match(message):
        return _of_body("" if key == "data" else key, message)
    handler = request.scope.get("route_handler")
    field = handler.parsed_fn_signature.parameters.get(key) if handler else None
    if field is not None and message.startswith("Invalid enum value"):
        words = [word for kind in (field.annotation, *get_args(field.annotation)) for word in get_args(kind)]
        message += f"; must be one of {', '.join(word for word in words if isinstance(word, str))}"
    alias = getattr(field.kwarg_definition, "name", None) if field is not None else None
    return {"path": alias or key, "message": message}


def _of_body(where: str, message: str) -> dict[str, str]:
    """Return the error of the body or of an object in it, with the path of the field."""
    if message == "'data'":
        return {"path": "", "message": "A JSON body is required."}
    at = _AT.search(message)
    message = message[: at.start()] if at else message
    field = _FIELD.match(message)
    path = ".".join(part for part in (where, at[1] if at else "", field[1] if field else "") if part)
    return {"path": path, "message": message}
