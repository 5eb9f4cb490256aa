"""An agent that was told something is told it again, whatever is away: two failed polls would silence it."""

import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import Stack, new_stack
from tests.devices import Device, key_for
from tests.serving import Served, new_data_folder, until

TARGET = {"apps": {}, "config": {"logging": {"level": "info"}}}


@pytest.fixture
def own_stack() -> Iterator[Stack]:
    with new_stack() as running:
        yield running


@pytest.mark.parametrize(
    "seconds", [pytest.param(3.0), pytest.param(30.0, marks=pytest.mark.slow)], ids=["short", "long"]
)
@pytest.mark.parametrize(
    "fault",
    [pytest.param("postgres killed", marks=pytest.mark.built_in_postgres), "redis killed", "redis stands still"],
)
def test_a_poll_is_answered_while_a_server_is_away(own_stack: Stack, fault: str, seconds: float) -> None:
    """With and without a tag, by a process that answered before and by one that only starts to; a job of seconds."""
    with new_data_folder() as folder:
        server = Served(folder, **own_stack.urls()).start().ready()
        try:
            server.add_tenant("polls")
            operator = server.login("polls", "owner")
            devices = [Device(server).join(key_for(operator)) for _ in range(3)]
            tags = {}
            for device in devices:
                assert operator.put(f"/agents/{device.uuid}/target-state", json=TARGET).status_code == 200
                until(lambda d=device: poll(d).json()[d.uuid]["config"])  # type: ignore[misc]
                tags[device.uuid] = poll(device).headers["etag"]
            base_url, headers = operator.base_url, operator.headers
            assert server.stop() == 0
            server.start().ready()
            operator = httpx.Client(base_url=base_url, headers=headers)
            for device in devices[:2]:  # the last one has not asked the new process yet
                assert poll(device, tags[device.uuid]).status_code == 304
            child = next(child for child in own_stack.servers.children if child.name == fault.split(maxsplit=1)[0])
            child.signal(signal.SIGKILL if "killed" in fault else signal.SIGSTOP)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for device in devices:
                    assert poll(device, tags[device.uuid]).status_code == 304
                    answer = poll(device)
                    assert answer.status_code == 200, answer.text
                    assert answer.headers["etag"] == tags[device.uuid]
                    assert answer.json()[device.uuid]["config"] == TARGET["config"]
                time.sleep(0.1)
            if "killed" in fault:
                until(lambda: not child.is_running())
                child.start()
            else:
                child.signal(signal.SIGCONT)
            until(lambda: httpx.get(f"http://127.0.0.1:{server.http_port}/ready").status_code == 200, 30)
            louder = {"apps": {}, "config": {"logging": {"level": "debug"}}}
            until(
                lambda: operator.put(f"/agents/{devices[0].uuid}/target-state", json=louder).status_code == 200,
                30,
                "a target is written again",
            )
            until(lambda: poll(devices[0]).json()[devices[0].uuid]["config"] == louder["config"])
        finally:
            operator.close()
            server.kill()


def poll(device: Device, tag: str | None = None) -> httpx.Response:
    headers = {"X-Device-API-Key": device.api_key} | ({"if-none-match": tag} if tag else {})
    return httpx.get(f"{device.base}/device/{device.uuid}/state", headers=headers, timeout=30)
