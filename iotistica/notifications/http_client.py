"""The platform's only way to call addresses that tenants choose: bounded, and never into private networks."""

import asyncio
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple

import httpcore
from httpcore import SOCKET_OPTION

from iotistica.domain.alerts import addresses
from iotistica.domain.alerts.addresses import Network

DEADLINE: Final = 10.0  # seconds for a whole request
ANSWER: Final = 64 << 10  # bytes of an answer that are read
SHOWN: Final = 200  # characters of an answer that an error shows
RESOLVERS: Final = 32  # host names that are looked up at a time
CONNECTIONS: Final = 200  # requests at a time
NOT_ALLOWED: Final = "the address is not allowed; IOTISTICA_WEBHOOK_ALLOW opens private networks"


class NotAllowed(Exception):
    """The address is not one that messages may go to."""


class Answer(NamedTuple):
    """How a request ended: `error` is None for success, and otherwise says why without what was found there."""

    status_code: int | None
    error: str | None
    retry_after: str | None = None


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections only to allowed addresses.

    The name is resolved here and the connection goes to the very address that was checked: a name that changes its
    address between a check and the connection would get past any other check.
    """

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed
        self._backend = httpcore.AnyIOBackend()
        self._resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolver")

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        # Not the loop's own threads, which are few: a name server that does not answer would keep them all.
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._resolvers, look_up)
        resolved = list(dict.fromkeys(str(address[0]) for *_, address in found))
        if not resolved or not all(addresses.is_allowed(address, self._allowed) for address in resolved):
            raise NotAllowed
        error: Exception = NotAllowed()
        for address in resolved:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                error = exc
        raise error

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise NotAllowed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class HttpClient:
    """Sends requests within `DEADLINE`, each over its own connection; follows no redirects."""

    def __init__(self, allowed: Sequence[Network], *, deadline: float = DEADLINE) -> None:
        """`allowed` are networks that are not public and may be called nevertheless."""
        self._deadline = deadline
        self._backend = GuardedBackend(allowed)
        self._tls = ssl.create_default_context()
        self._places = asyncio.Semaphore(CONNECTIONS)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a request; any answer from 200 to 299 is a success."""
        try:
            async with asyncio.timeout(self._deadline), self._places:
                return await self._post(url, headers, body)
        except TimeoutError:
            return Answer(None, f"no complete answer within {self._deadline:.0f} s")
        except NotAllowed:
            return Answer(None, NOT_ALLOWED)
        except socket.gaierror:
            return Answer(None, "the name of the host is unknown")
        except (httpcore.ConnectError, httpcore.ConnectTimeout, OSError) as exc:
            return Answer(None, f"cannot connect: {_reason(exc)}")
        except (httpcore.ProtocolError, httpcore.NetworkError, httpcore.TimeoutException) as exc:
            return Answer(None, f"no valid answer: {_reason(exc)}")
        except (httpcore.UnsupportedProtocol, ValueError, UnicodeError) as exc:
            return Answer(None, f"the URL cannot be called: {_reason(exc)}")

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=self._tls, network_backend=self._backend, keepalive_expiry=0, retries=0
            ) as pool,
            pool.stream(
                "POST",
                url,
                headers=[
                    ("Host", _host(url)),
                    ("User-Agent", "Iotistica"),
                    ("Content-Type", "application/json"),
                    ("Content-Length", str(len(body))),
                    *headers.items(),
                ],
                content=body,
            ) as response,
        ):
            found = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            content = b""
            async for chunk in response.aiter_stream():
                content += chunk
                if len(content) >= ANSWER:
                    break  # the rest is not read: the connection is closed
            if 200 <= response.status < 300:
                return Answer(response.status, None)
            if 300 <= response.status < 400:
                said = "redirects are not followed; enter the address that it redirects to"
            else:
                text = content[: SHOWN * 4].decode("utf-8", "replace")[:SHOWN]
                said = "".join(c if c.isprintable() else " " for c in text).strip()
            error = f"HTTP {response.status}: {said}" if said else f"HTTP {response.status}"
            return Answer(response.status, error, found.get(b"retry-after"))


def _host(url: str) -> str:
    return url.split("://", 1)[-1].split("/", 1)[0].split("?", 1)[0].split("#", 1)[0]


def _reason(exc: Exception) -> str:
    text = "".join(c if c.isprintable() else " " for c in str(exc)).strip()
    return text[:SHOWN] or type(exc).__name__
