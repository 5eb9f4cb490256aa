"""The client for addresses that tenants choose connects only to what it has checked."""

import socket
from typing import Any

import pytest

from iotistica.domain.alerts import addresses
from iotistica.notifications import http_client
from iotistica.notifications.http_client import NOT_ALLOWED, HttpClient
from tests.receivers import Receiver, receiver

PUBLIC = "93.184.216.34"
LOOPBACK = addresses.parse_networks("127.0.0.0/8")


def resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let the name server give these answers in turn; returns the list of asked names."""
    asked: list[str] = []
    waiting = list(answers)

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        found = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


async def post(client: HttpClient, hooks: Receiver, host: str = "hooks.example.com") -> http_client.Answer:
    return await client.post(f"http://{host}:{hooks.port}/hook", {}, b"{}")


async def test_a_name_is_looked_up_once_and_the_checked_address_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is public at the check and private at the connection reaches nothing private."""
    with receiver() as hooks:
        asked = resolve_to(monkeypatch, [PUBLIC], ["127.0.0.1"])
        answer = await post(HttpClient((), deadline=1), hooks)
        assert (answer.error is not None, asked, hooks.opened) == (True, ["hooks.example.com"], 0)


@pytest.mark.parametrize("found", [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["169.254.169.254"], []])
async def test_one_private_address_among_others_is_enough_to_refuse(
    monkeypatch: pytest.MonkeyPatch, found: list[str]
) -> None:
    """Otherwise it would depend on chance which of them is called."""
    with receiver() as hooks:
        resolve_to(monkeypatch, found)
        assert (await post(HttpClient(()), hooks)).error == NOT_ALLOWED
        assert hooks.opened == 0


async def test_an_allowed_network_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host in the request is the name, not the address that was found."""
    with receiver() as hooks:
        resolve_to(monkeypatch, ["127.0.0.1"])
        assert (await post(HttpClient(LOOPBACK), hooks)).error is None
        assert hooks.received[0].headers["host"] == f"hooks.example.com:{hooks.port}"


async def test_nothing_of_the_environment_leads_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment would be called without a check."""
    with receiver() as hooks, receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert (await post(HttpClient(LOOPBACK), hooks, "127.0.0.1")).error is None
        assert (len(hooks.received), proxy.opened) == (1, 0)
