"""Rejects query parameters that a route does not declare, or that are repeated without being a list."""

from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from iotistica.errors import Invalid

MOST: Final = 200  # characters of a parameter's name that an error message shows


class _Known(NamedTuple):
    names: frozenset[str]
    lists: frozenset[str]


class QueryParameters:
    """Checks query parameters; caches the parameters that each route declares."""

    def __init__(self) -> None:
        self._known: dict[BaseRouteHandler, _Known] = {}  # no more than there are routes

    def check(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Raise `Invalid` for a parameter that the route does not declare, or that is repeated but not a list.

        A misspelt parameter would otherwise be ignored: a deletion without its filter would delete everything.
        """
        if not connection.query_params:
            return
        known = self._known.get(handler) or self._declared(connection, handler)
        for name in connection.query_params:
            if name not in known.names:
                raise Invalid(_unknown(name[:MOST], known.names), name[:MOST])
            if name not in known.lists and len(connection.query_params.getall(name)) > 1:
                raise Invalid("must be given only once", name)

    def _declared(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> _Known:
        model = handler.create_kwargs_model(dict.fromkeys(connection.path_params))  # type: ignore[arg-type] # only the keys are used
        names = frozenset(parameter.field_alias for parameter in model.expected_query_params)
        self._known[handler] = _Known(names, frozenset(model.sequence_query_parameter_names))
        return self._known[handler]


def _unknown(name: str, known: frozenset[str]) -> str:
    if not known:
        return "is not a parameter of this route, which has none"
    close = get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(known))}"
    return f"is not a parameter of this route; {hint}"
