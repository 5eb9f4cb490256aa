"""What memory answers is what the whole way answers, and no more than it would."""

import socket
import time
from functools import partial

import httpx
import pytest

from tests.devices import Device, key_for
from tests.serving import Served, until


@pytest.fixture(scope="module")
def owner(server: Served) -> httpx.Client:
    server.add_tenant("shortcut")
    return server.login("shortcut", "owner")


def ask(device: Device, uuid: str | None = None, **headers: str) -> httpx.Response:
    given = {"X-Device-API-Key": device.api_key} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return httpx.get(f"{device.base}/device/{uuid or device.uuid}/state", headers=given)


def told(answer: httpx.Response) -> tuple[int, str, bytes, str | None, str]:
    shown = answer.headers
    return answer.status_code, shown["etag"], answer.content, shown.get("content-type"), shown["cache-control"]


def test_memory_says_what_the_route_says(server: Served, owner: httpx.Client) -> None:
    """The first answer takes the whole way, an upper-case uuid always does; the others are the same to the byte."""
    device = Device(server).join(key_for(owner))
    assert owner.put(f"/agents/{device.uuid}/target-state", json={"config": {"a": 1}}).status_code == 200
    until(lambda: ask(device).json()[device.uuid]["config"] == {"a": 1}, what="the target is told")
    time.sleep(0.2)
    tag = ask(device).headers["etag"]
    for known in ("", tag, f"W/{tag}", f'"other", {tag}', "*", tag.strip('"'), '"other"'):
        headers = {"If_None_Match": known} if known else {}
        quick, whole = ask(device, **headers), ask(device, device.uuid.upper(), **headers)
        assert told(quick) == told(whole)
        assert quick.status_code == (200 if known in ("", '"other"') else 304)
    bearer = httpx.get(
        f"{device.base}/device/{device.uuid}/state",
        headers={"authorization": f"Bearer {device.api_key}", "if-none-match": tag},
    )
    assert bearer.status_code == 304


def test_memory_lets_nobody_in(server: Served, owner: httpx.Client) -> None:
    """Another agent's uuid, a wrong key, one that has not proved itself, one that was revoked meanwhile."""
    device, other = Device(server).join(key_for(owner)), Device(server).join(key_for(owner))
    unproven = Device(server)
    unproven.register(key_for(owner))
    assert [ask(one).status_code for one in (device, other, device, other)] == [200] * 4
    tag = ask(device).headers["etag"]
    assert ask(device, other.uuid, If_None_Match="*").status_code == 404
    assert ask(device, X_Device_API_Key="v2_" + "0" * 70).status_code == 401
    assert httpx.get(f"{device.base}/device/{device.uuid}/state", headers={"if-none-match": tag}).status_code == 401
    assert ask(unproven).status_code == 403
    assert (
        httpx.post(f"{device.base}/device/{device.uuid}/state", headers={"if-none-match": tag}).status_code == 405
    )
    owner.post(f"/agents/{device.uuid}/revoke")
    until(lambda: ask(device, If_None_Match=tag).status_code == 401, 2, "it is let in no more")


def test_a_new_target_is_told_at_once(server: Served, owner: httpx.Client) -> None:
    """Whoever had the old one gets the new one, within a second of its deployment."""
    device = Device(server).join(key_for(owner))

    def changed(since: str) -> httpx.Response | None:
        answer = ask(device, If_None_Match=since)
        return answer if answer.status_code == 200 else None

    tag = ask(device).headers["etag"]
    for number in range(5):
        assert ask(device, If_None_Match=tag).status_code == 304
        owner.put(f"/agents/{device.uuid}/target-state", json={"config": {"number": number}})
        answer = until(partial(changed, tag), 1)
        assert answer.json()[device.uuid]["config"] == {"number": number}
        tag = answer.headers["etag"]


def test_open_connections_are_no_crowd(server: Served, owner: httpx.Client) -> None:
    """Ten thousand agents keep theirs open between two polls; who comes then is answered."""
    device = Device(server).join(key_for(owner))
    sockets = [socket.create_connection(("127.0.0.1", server.http_port)) for _ in range(2500)]
    try:
        headers = {"X-Device-API-Key": device.api_key}
        for path in (f"device/{device.uuid}/state", f"devices/{device.uuid}"):
            assert httpx.get(f"{device.base}/{path}", headers=headers).status_code == 200
    finally:
        for one in sockets:
            one.close()
