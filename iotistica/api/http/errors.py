"""One table from our errors to HTTP answers, as RFC 9457 problems with an `error` for older clients."""

import math
import re
from typing import Any, Final, get_args

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from loguru import logger

from iotistica import errors

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
TITLES: Final = {400: "Bad request", 401: "Not logged in", 404: "Not found", 405: "Method not allowed"}


def problem_response(request: Request[Any, Any, Any], exc: Exception) -> Response[dict[str, object]]:
    """The problem document of any error."""
    status, title = next(
        (answer for kind in type(exc).__mro__ if (answer := STATUS.get(kind))), (500, "Internal error")
    )
    detail, extra = str(exc), dict[str, object]()
    if isinstance(exc, (RecursionError, UnicodeDecodeError)):
        status, title, detail = 400, "Bad request", "the body is nested too deep, or is no UTF-8"
    elif isinstance(exc, HTTPException):
        status, title, detail = exc.status_code, TITLES.get(exc.status_code, "Request refused"), exc.detail
        if isinstance(exc, ValidationException) and isinstance(exc.extra, list):
            found = [_explained(request, e.get("key", ""), e.get("message", "")) for e in exc.extra]
            detail = (
                "; ".join(f"{e['path']}: {e['message']}" if e["path"] else e["message"] for e in found) or detail
            )
            extra = {"errors": found}
    elif isinstance(exc, errors.Invalid) and exc.path:
        extra = {"errors": [{"path": exc.path, "message": detail}]}
    elif isinstance(exc, errors.Outdated):
        extra = {"current": exc.current}
    if status == 500:
        logger.opt(exception=exc).error("request failed")
        detail = "an error of ours; the log has it"
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


def _explained(request: Request[Any, Any, Any], key: str, message: str) -> dict[str, str]:
    """An error of one parameter, by the name that the caller knows; where only some words will do, with those."""
    if key == "data" or _FIELD.match(message):
        return _of_body("" if key == "data" else key, message)
    handler = request.scope.get("route_handler")
    field = handler.parsed_fn_signature.parameters.get(key) if handler else None
    if field is not None and message.startswith("Invalid enum value"):
        words = [word for kind in (field.annotation, *get_args(field.annotation)) for word in get_args(kind)]
        message += f"; there are {', '.join(word for word in words if isinstance(word, str))}"
    alias = getattr(field.kwarg_definition, "name", None) if field is not None else None
    return {"path": alias or key, "message": message}


def _of_body(where: str, message: str) -> dict[str, str]:
    """An error of the body or an object in it, by the path of the field."""
    if message == "'data'":
        return {"path": "", "message": "a JSON body is needed"}
    at = _AT.search(message)
    message = message[: at.start()] if at else message
    field = _FIELD.match(message)
    path = ".".join(part for part in (where, at[1] if at else "", field[1] if field else "") if part)
    return {"path": path, "message": message}
