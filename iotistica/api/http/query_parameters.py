"""Query parameters as a route declares them: what it does not know, or takes once, is never ignored."""

from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from iotistica.errors import Invalid

MOST: Final = 200  # characters of a name that an error repeats


class _Known(NamedTuple):
    names: frozenset[str]
    lists: frozenset[str]


class QueryParameters:
    """The parameters of each route, looked up once."""

    def __init__(self) -> None:
        self._known: dict[BaseRouteHandler, _Known] = {}  # no more than there are routes

    def check(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Raise `Invalid` for a parameter that the route has not, or that is repeated and no list.

        One that is misspelt would otherwise be as if it were not there: of a deletion that would be everything.
        """
        if not connection.query_params:
            return
        known = self._known.get(handler) or self._learn(connection, handler)
        for name in connection.query_params:
            if name not in known.names:
                raise Invalid(_unknown(name[:MOST], known.names), name[:MOST])
            if name not in known.lists and len(connection.query_params.getall(name)) > 1:
                raise Invalid(f"{name} is given more than once", name)

    def _learn(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> _Known:
        model = handler.create_kwargs_model(dict.fromkeys(connection.path_params))  # type: ignore[arg-type] # keys alone
        names = frozenset(parameter.field_alias for parameter in model.expected_query_params)
        self._known[handler] = _Known(names, frozenset(model.sequence_query_parameter_names))
        return self._known[handler]


def _unknown(name: str, known: frozenset[str]) -> str:
    if not known:
        return f"there is no parameter {name!r}: this route takes none"
    close = get_close_matches(name, known, 1)
    return f"there is no parameter {name!r}" + (
        f"; is {close[0]} meant?" if close else f"; there are {', '.join(sorted(known))}"
    )
