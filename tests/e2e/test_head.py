"""HEAD is answered on every GET route, as uptime monitors and proxies send it."""

import socket

import httpx
import pytest

from tests.serving import Served


@pytest.fixture(scope="module")
def client(server: Served) -> httpx.Client:
    server.add_tenant("head")
    return server.login("head", "owner")


def test_head_is_answered_on_every_get_route(client: httpx.Client, server: Served) -> None:
    """With the status and the headers of GET and without a body, whatever the route; streams end at once."""
    base = f"http://127.0.0.1:{server.http_port}"
    paths = httpx.get(f"{base}/schema/openapi.json").json()["paths"]
    nobody = "00000000-0000-0000-0000-000000000000"
    checked = 0
    for path, item in paths.items():
        if "get" not in item:
            continue
        names = [part for part in path.split("/") if part.startswith("{")]
        for name in names:
            path = path.replace(name, nobody)
        got, head = client.get(base + path), client.head(base + path)
        assert head.status_code == got.status_code, path
        assert head.headers["content-type"] == got.headers["content-type"], path
        assert head.content == b"", path
        checked += 1
    assert checked > 50
    live = client.head("/live", params={"agents": "all"})
    assert (live.status_code, live.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    for path in ("/health", "/ready", "/metrics", "/schema"):
        assert httpx.head(base + path).status_code == 200, path


def test_head_is_not_answered_where_there_is_no_get(client: httpx.Client) -> None:
    """A route that only writes refuses it, and nothing is written."""
    assert client.head("/jobs/execute").status_code == 405


def test_a_connection_goes_on_after_head(server: Served) -> None:
    """No byte of a body is sent, so the next answer on the connection is read as what it is."""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection:
        for _ in range(3):
            connection.sendall(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\n")
