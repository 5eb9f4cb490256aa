"""The OpenAPI document, and what becomes of requests that are made from it by chance."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from tests.devices import Device, key_for
from tests.serving import Served, served

EXAMPLES = [2, pytest.param(10, marks=pytest.mark.slow)]  # of each operation and kind; every caller sends them
ENDS_OUR_SESSION = r"/auth/(logout|sessions/\{session\})$"


@pytest.fixture(scope="module")
def limitless() -> Iterator[Served]:
    """An instance on which a minute has no end."""
    with served(IOTISTICA_USER_LIMIT="1000000", IOTISTICA_ADMIN_LIMIT="1000000") as running:
        yield running


@pytest.fixture(scope="module")
def schema(limitless: Served) -> schemathesis.BaseSchema:
    found = schemathesis.openapi.from_url(f"http://127.0.0.1:{limitless.http_port}/schema/openapi.json")
    return found.exclude(path_regex=ENDS_OUR_SESSION).exclude(path="/api/v1/live")  # which ends when we do


@pytest.fixture(scope="module")
def callers(limitless: Served) -> dict[str, dict[str, str]]:
    owner = limitless.login()
    device = Device(limitless).join(key_for(owner))
    return {
        "nobody": {},
        "agent": {"X-Device-API-Key": device.api_key},
        "owner": {"Authorization": owner.headers["authorization"]},
    }


@pytest.mark.parametrize("examples", EXAMPLES)
def test_no_request_is_answered_by_an_error_of_ours(
    limitless: Served, schema: schemathesis.BaseSchema, callers: dict[str, dict[str, str]], examples: int
) -> None:
    """From every operation, valid and broken, by an owner, an agent and nobody: never a 5xx."""
    operations = 0
    faults: list[str] = []
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result.err()
        operation = result.ok()
        operations += 1
        modes = (
            list(GenerationMode)
            if list(operation.iter_parameters()) or operation.body
            else [GenerationMode.POSITIVE]
        )
        for mode in modes:
            _probe(operation, mode, list(callers.values()), faults, examples)
    assert operations > 60
    assert faults == []
    assert "request failed" not in limitless.text()
    assert httpx.get(f"http://127.0.0.1:{limitless.http_port}/health").json()["status"] == "healthy"


def _probe(
    operation: schemathesis.APIOperation[Any, Any, Any, Any],
    mode: GenerationMode,
    callers: list[dict[str, str]],
    faults: list[str],
    examples: int,
) -> None:
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(mode))
    def probe(case: schemathesis.Case[Any]) -> None:
        for headers in callers:
            answer = case.call(headers=headers)
            if answer.status_code >= 500:
                faults.append(f"{case.as_curl_command()}\n{answer.text}")

    probe()
