"""What `iotistica/storage/redis.py` and the streams expect of redis-py: its error classes and their texts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from redis import exceptions

from iotistica.errors import Full, Unavailable
from iotistica.storage import redis as storage
from iotistica.storage.redis import Redis, guarded

REDIS = "redis-py changed: adapt iotistica/storage/redis.py"
TEXTS = "redis-py changed the text of an error: adapt iotistica/storage/delivery"


@asynccontextmanager
async def server(reply: Callable[[bytes], bytes]) -> AsyncIterator[Redis]:
    """A client of a server that sends `reply` of each command, or nothing if that is empty."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                parts = []
                for _ in range(int(line[1:])):
                    await reader.readline()
                    parts.append((await reader.readline()).strip())
                command = b" ".join(parts)
                writer.write(b"+OK\r\n" if parts[0] in (b"CLIENT", b"HELLO") else reply(command))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = storage.client(f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}/0")
    try:
        yield client
    finally:
        await client.aclose()
        listening.close()


async def test_a_client_is_made_from_the_class_it_is_called_on() -> None:
    """`storage.redis.client` sets the circuit breaker as an attribute of the client."""
    async with server(lambda _: b"+PONG\r\n") as redis:
        assert type(redis) is Redis, REDIS
        await storage.ping(redis)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", Full),
        ("LOADING Redis is loading the dataset in memory", Unavailable),
        ("READONLY You can't write against a read only replica.", Unavailable),
        ("MASTERDOWN Link with MASTER is down", Unavailable),
        ("CLUSTERDOWN The cluster is down", Unavailable),
        ("TRYAGAIN Multiple keys request during rehashing", Unavailable),
        ("MISCONF Redis is configured to save RDB snapshots, but it cannot", Unavailable),
        ("NOPERM this user has no permissions", exceptions.NoPermissionError),
        ("WRONGTYPE Operation against a key", exceptions.ResponseError),
    ],
)
async def test_an_error_of_the_server_has_its_class(text: str, kind: type[Exception]) -> None:
    """The driver maps the first word to a class, or leaves it in the text."""
    async with server(lambda _: f"-{text}\r\n".encode()) as redis:
        with pytest.raises(kind), guarded(redis):
            await redis.get("x")


async def test_an_aborted_transaction_is_no_lack_of_the_server() -> None:
    """EXECABORT: Redis refused a write inside MULTI."""

    def reply(command: bytes) -> bytes:
        if command == b"MULTI":
            return b"+OK\r\n"
        return b"-EXECABORT Transaction discarded.\r\n" if command == b"EXEC" else b"+QUEUED\r\n"

    async with server(reply) as redis:
        with pytest.raises(Full), guarded(redis):
            async with redis.pipeline(transaction=True) as pipe:
                pipe.set("x", 1)
                await pipe.execute()


@pytest.mark.parametrize("word", ["NOGROUP No such key", "BUSYGROUP Consumer Group name already exists"])
async def test_the_first_word_stays_in_the_text_of_an_error(word: str) -> None:
    """`streams.py` and `stream_stats.py` look for it, with and without a pipeline."""
    async with server(lambda _: f"-{word}\r\n".encode()) as redis:
        with pytest.raises(exceptions.ResponseError) as caught:
            await redis.execute_command("XREADGROUP")  # type: ignore[no-untyped-call]  # untyped in redis-py
        assert str(caught.value).startswith(word.split(maxsplit=1)[0]), TEXTS
        async with redis.pipeline(transaction=False) as pipe:
            pipe.execute_command("XREADGROUP")
            (error,) = await pipe.execute(raise_on_error=False)
        assert isinstance(error, exceptions.ResponseError), TEXTS
        assert str(error).startswith(word.split(maxsplit=1)[0]), TEXTS


async def test_an_exhausted_pool_is_not_an_unavailable_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's only mark of it is the text of a `ConnectionError`."""
    monkeypatch.setattr(storage, "CONNECTIONS", 1)
    monkeypatch.setattr(storage, "TIMEOUT_SECONDS", 0.2)
    async with server(lambda _: b"") as redis:
        waiting = asyncio.ensure_future(redis.get("x"))
        await asyncio.sleep(0.05)
        with pytest.raises(Full), guarded(redis):
            await asyncio.gather(*(redis.get("x") for _ in range(3)))
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_timeout_and_a_lost_connection_are_an_unavailable_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both without a retry of the driver."""
    monkeypatch.setattr(storage, "TIMEOUT_SECONDS", 1.0)  # connecting can take a while, too
    calls = []

    def silent(command: bytes) -> bytes:
        calls.append(command)
        return b""

    async with server(silent) as redis:
        with pytest.raises(Unavailable), guarded(redis):
            await redis.get("x")
    assert len(calls) == 1, REDIS
    with pytest.raises(Unavailable), guarded(redis):
        await redis.get("x")
