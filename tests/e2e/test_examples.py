"""Every route that people call by hand has an example that works; the documents and /schema show it.

With IOTISTICA_TEST_WRITE_EXAMPLES=1 the examples are written anew: do so after a route has changed.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from iotistica.api.http import examples as shown
from iotistica.api.page.page import PATHS
from iotistica.domain.access.permissions import AGENT, BROKER
from tests.application import http_routes
from tests.e2e.examples import access, agents, alerts, control, dashboards, telemetry
from tests.e2e.examples.recorder import Example, Recorder, shape
from tests.serving import Served, served

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
BY_PROGRAMS = {
    "POST /api/v1/agent/register": "agents register themselves",
    "GET /api/v1/live": "a stream of events, which does not end",
    "GET /api/v1/provisioning-keys": "another name of /provision/keys",
    "POST /api/v1/provisioning-keys": "another name of /provision/keys",
    "DELETE /api/v1/provisioning-keys/{key}": "another name of /provision/keys",
    **{
        f"{method} /api/v1/anomaly-{name}": "another name of /anomaly/…"
        for method, name in (
            *(("GET", "incidents"), ("GET", "incidents/{incident}"), ("GET", "incidents/{incident}/members")),
            *(("POST", "incidents/{incident}/acknowledge"), ("POST", "incidents/{incident}/resolve")),
            *(("PATCH", "incidents/{incident}/resolve"), ("POST", "incidents/{incident}/notes")),
            *(("GET", "alerts"), ("GET", "alerts/{alert}"), ("POST", "alerts/{alert}/replay")),
        )
    },
    "PATCH /api/v1/anomaly/incidents/{incident}/resolve": "what earlier clients send instead of POST",
    **{f"GET /{path}": "the dashboard" for name in PATHS for path in (name, f"{name}/{{rest}}")},
    "GET /assets/{name}": "a part of the dashboard",
    "GET /schema": "the page of the API",
    "GET /schema/openapi.json": "the document of the API",
    "GET /schema/assets/{name}": "a part of the page",
    "GET /schema/{path}": "answers what is not there",
}
"""Routes without an example, and why."""


@pytest.fixture(scope="module")
def recorded() -> Iterator[dict[str, Example]]:
    """The examples of a walk through all routes on an instance of its own."""
    with served(IOTISTICA_REGISTRATION_TENANT="examples") as server:
        yield walk(server)


def walk(server: Served) -> dict[str, Example]:
    server.add_tenant("examples")
    owner, base = server.login("examples", "owner"), f"http://127.0.0.1:{server.http_port}"
    call = Recorder(base)
    try:
        access.walk(call, owner, login_token(server))
        created, fleet = agents.walk(call, owner)
        telemetry.walk(call, owner, created, base)
        control.walk(call, owner, created["agent"]["uuid"], fleet)
        alerts.walk(call, owner, created)
        dashboards.walk(call, owner, created["agent"]["uuid"])
        agents.leave(call, owner)
    finally:
        call.close()
    return call.examples


def login_token(server: Served) -> str:
    """The token of a link that logs the owner in."""
    done = server.command("users", "link", "owner-examples@example.com", "--tenant", "examples")
    return done.stdout.strip().partition("#token=")[2]


def test_every_route_for_people_has_an_example_that_works(recorded: dict[str, Example]) -> None:
    """The walk has called each; agents and brokers have protocols of their own."""
    routes = {
        f"{method} {shown.without_types(path)}"
        for path, handler in http_routes()
        for method in handler.http_methods - {"OPTIONS", "HEAD"}
        if handler.opt.get("permission") not in (AGENT, BROKER)
    }
    assert routes - set(BY_PROGRAMS) == set(recorded)


def test_the_examples_in_the_documents_are_those_of_the_walk(recorded: dict[str, Example]) -> None:
    """Every field that is shown is answered, and no other; the page of the documents is made from them."""
    page = Path(__file__).parents[2] / "docs" / "http-examples.md"
    if os.environ.get("IOTISTICA_TEST_WRITE_EXAMPLES"):
        ordered = dict(
            sorted(
                recorded.items(),
                key=lambda item: (item[0].partition(" ")[2], METHODS.index(item[0].partition(" ")[0])),
            )
        )
        shown.FILE.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
        shown.load.cache_clear()
        page.write_text(shown.page())
    examples = shown.load()
    assert set(examples) == set(recorded)
    for route, example in examples.items():
        assert shape(example) == shape(recorded[route]), route
    assert page.read_text() == shown.page()


def test_the_schema_shows_the_examples_and_every_way_to_log_in(server: Served) -> None:
    """At the request, at its parameters and at the answer, in the document that the page is made from."""
    schema = httpx.get(f"http://127.0.0.1:{server.http_port}/schema/openapi.json").json()
    schemes = {scheme.get("name") for scheme in schema["components"]["securitySchemes"].values()}
    assert {"X-Device-API-Key", "X-API-Key"} <= schemes
    for route, example in shown.load().items():
        method, _, path = route.partition(" ")
        operation = schema["paths"][path][method.lower()]
        if example["body"] is not None:
            (content,) = operation["requestBody"]["content"].values()
            assert content["example"] == example["body"], route
        if example["answer"] is not None:
            (content,) = operation["responses"][str(example["status"])]["content"].values()
            assert content["example"] == example["answer"], route
        names = {parameter["name"]: parameter for parameter in operation.get("parameters", ())}
        for name, value in {**example["path"], **example["query"]}.items():
            assert names[name]["example"] == value, route
