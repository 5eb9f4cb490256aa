"""The internals and message texts of Litestar that `iotistica/api/http` depends on."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from litestar import post
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.testing import TestClient, create_test_client

from iotistica.api.http import errors
from iotistica.api.http.query_parameters import QueryParameters

PARAMETERS = "Litestar changed: adapt iotistica/api/http/query_parameters.py"
ERRORS = "Litestar or msgspec changed: adapt iotistica/api/http/errors.py"


class Part(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(le=9)]


class Body(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    parts: list[Part] = []


@post("/{agent:uuid}")
async def route(
    agent: FromPath[UUID],
    data: JSONBody[Body],
    kind: Annotated[Literal["one", "two"] | None, QueryParameter()] = None,
    limit: Annotated[int, QueryParameter(name="maxCount", ge=1, le=5)] = 1,
    tags: Annotated[list[str] | None, QueryParameter(name="tag")] = None,
) -> str:
    return "done"


@post("/bare")
async def bare() -> str:
    return "done"


known = QueryParameters()


def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    known.check(connection, handler)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Any]]:
    with create_test_client(
        [route, bare],
        guards=[guard],
        exception_handlers={Exception: errors.problem_response},
        logging_config=None,
        raise_server_exceptions=False,
    ) as made:
        yield made


def registered(client: TestClient[Any]) -> BaseRouteHandler:
    """The handler as the guard gets it: the app's copy of `route`."""
    routes = [route for route in client.app.routes if route.path == "/{agent:uuid}"]
    handlers: list[BaseRouteHandler] = [h for h in routes[0].route_handlers if h.handler_name == "route"]
    (handler,) = handlers
    return handler


def send(client: TestClient[Any], json: Any, **query: Any) -> Any:
    return client.post("/00000000-0000-0000-0000-000000000000", json=json, params=query)


def test_the_query_parameters_of_a_route_can_be_listed(client: TestClient[Any]) -> None:
    """With the names that callers use, and without path parameters and the body."""
    handler = registered(client)
    model = handler.create_kwargs_model({"agent": None})  # type: ignore[dict-item]  # only the keys are used
    names = {parameter.field_alias for parameter in model.expected_query_params}
    assert names == {"kind", "maxCount", "tag"}, PARAMETERS
    assert set(model.sequence_query_parameter_names) == {"tag"}, PARAMETERS


def test_the_parameters_of_a_handler_have_their_alias_and_annotation(client: TestClient[Any]) -> None:
    """An error of a parameter says the name that the caller uses, and the values that are allowed."""
    parameters = registered(client).parsed_fn_signature.parameters
    kwarg_definition = parameters["limit"].kwarg_definition
    assert isinstance(kwarg_definition, QueryParameter), ERRORS
    assert kwarg_definition.name == "maxCount", ERRORS
    assert parameters["kind"].annotation == Literal["one", "two"] | None, ERRORS


def test_unknown_and_repeated_parameters_are_refused(client: TestClient[Any]) -> None:
    """End to end, with the real guard; a list can be repeated."""
    body = {"name": "x"}
    assert send(client, body, tag=["a", "b"], kind="one", maxCount=2).status_code == 201, PARAMETERS
    assert send(client, body, limit=2).json()["errors"][0]["path"] == "limit", PARAMETERS
    assert send(client, body, kind=["one", "two"]).json()["errors"][0]["path"] == "kind", PARAMETERS
    assert client.post("/bare", params={"x": 1}).status_code == 400, PARAMETERS


@pytest.mark.parametrize(
    ("body", "query", "path", "message"),
    [
        ({"name": "x"}, {"maxCount": 6}, "maxCount", "Expected `int` <= 5"),
        ({"name": "x"}, {"kind": "three"}, "kind", "Invalid enum value 'three'; must be one of one, two"),
        ({}, {}, "name", "Object missing required field `name`"),
        ({"name": "x", "nmae": 1}, {}, "nmae", "Object contains unknown field `nmae`"),
        ({"name": 1}, {}, "name", "Expected `str`, got `int`"),
        ({"name": "x", "parts": [{"size": 10}]}, {}, "parts[0].size", "Expected `int` <= 9"),
        ({"name": "x", "parts": [{}]}, {}, "parts[0].size", "Object missing required field `size`"),
    ],
)
def test_a_validation_error_names_the_field(
    client: TestClient[Any], body: Any, query: dict[str, Any], path: str, message: str
) -> None:
    """The path and the message are taken from `extra` and from the texts of msgspec."""
    answer = send(client, body, **query)
    assert answer.status_code == 400, ERRORS
    assert answer.json()["errors"] == [{"path": path, "message": message}], ERRORS


def test_a_missing_body_has_a_message(client: TestClient[Any]) -> None:
    """Litestar's message for it is the text of a KeyError."""
    answer = client.post("/00000000-0000-0000-0000-000000000000")
    assert answer.json()["errors"] == [{"path": "", "message": "A JSON body is required."}], ERRORS


@pytest.mark.parametrize("body", [b'{"name": "\xff"}', b'{"name": ' + b"[" * 100_000])
def test_a_body_that_cannot_be_decoded_is_the_callers_error(client: TestClient[Any], body: bytes) -> None:
    """`UnicodeDecodeError` and `RecursionError` reach the exception handler as they are."""
    answer = client.post(
        "/00000000-0000-0000-0000-000000000000", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400, ERRORS
    assert "too deep" in answer.json()["detail"], ERRORS
