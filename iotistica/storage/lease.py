"""Leases: one process at a time holds a lease and does its work; another one stands by and takes over."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import psycopg
from loguru import logger
from redis.exceptions import RedisError, WatchError

from iotistica.errors import Superseded, Unavailable
from iotistica.storage.postgres import Database, Tx
from iotistica.storage.redis import Redis, guarded
from iotistica.supervise import sleep

NAMES: Final = ("intake", "control", "logs", "rules", "notifications", "background")
TTL_MS: Final = 15_000  # ms until a lease that is not renewed expires
RENEW_SECONDS: Final = 5.0  # seconds between renewals
RETRY_SECONDS: Final = 1.0  # seconds between attempts to acquire a lease


@asynccontextmanager
async def hold(redis: Redis, name: str, stop: asyncio.Event) -> AsyncIterator[int | None]:
    """Wait for the lease and hold it during the block; yields its fencing number, or None once `stop` is set.

    If another process takes the lease, the block is cancelled and `Superseded` is raised. The block continues
    while Redis is unavailable. If only this process cannot reach Redis, another one can take the lease meanwhile;
    the broker lets only one of the two have the MQTT session.
    """
    key, token = f"lease:{name}", secrets.token_hex(8)
    fence = await _acquire(redis, key, token, stop)
    if fence is None:
        yield None
        return
    block = asyncio.current_task()
    assert block is not None  # noqa: S101 this is a coroutine
    lost = over = False

    async def renew() -> None:
        nonlocal lost
        while not over:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                renewed = await _renew(redis, key, token)
            except (Unavailable, RedisError):
                continue  # or a driver turned the cancellation into this error; then `over` ends the loop
            if not renewed and not over:
                lost = True
                block.cancel()
                return

    renewal = asyncio.create_task(renew(), name=f"renew {key}")
    try:
        try:
            yield fence
        finally:
            over = True
            renewal.cancel()
            await asyncio.wait([renewal])  # a renewal after the release would keep the lease without a holder
            if not lost:
                await _release(redis, key, token)
    except (asyncio.CancelledError, Exception) as exc:
        if lost:  # even if a driver turned the cancellation into another error
            block.uncancel()
            raise Superseded(f"another process took the lease {name}") from exc
        raise


async def is_held(redis: Redis, name: str) -> bool:
    """Whether any process holds the lease now; raises `Unavailable`."""
    with guarded(redis):
        return bool(await redis.exists(f"lease:{name}"))


async def clear_all(redis: Redis) -> None:
    """Delete every lease; for the start of the built-in Redis, when no holder runs any more."""
    with guarded(redis):
        await redis.delete(*(f"lease:{name}" for name in NAMES))


async def _acquire(redis: Redis, key: str, token: str, stop: asyncio.Event) -> int | None:
    waiting = False
    if left := redis.unreleased.pop(key, None):
        await _release(redis, key, left)
    while not stop.is_set():
        with guarded(redis):
            if await redis.set(key, token, nx=True, px=TTL_MS):
                return int(await redis.incr(f"{key}:fence"))
        if not waiting:
            logger.bind(lease=key).info("waiting for a lease that another process holds")
            waiting = True
        await sleep(RETRY_SECONDS, stop)
    return None


async def _renew(redis: Redis, key: str, token: str) -> bool:
    """Extend the lease, or acquire it again if it expired and no process holds it; False if another one does."""
    with guarded(redis):
        async with redis.pipeline(transaction=True) as pipe:
            try:
                await pipe.watch(key)
                owner = await pipe.get(key)
                if owner not in (None, token.encode()):
                    return False
                pipe.multi()  # type: ignore[no-untyped-call]
                pipe.set(key, token, px=TTL_MS)
                await pipe.execute()
            except WatchError:
                return False
            return True


async def _release(redis: Redis, key: str, token: str) -> None:
    try:
        with guarded(redis):
            async with redis.pipeline(transaction=True) as pipe:
                await pipe.watch(key)
                if await pipe.get(key) == token.encode():
                    pipe.multi()  # type: ignore[no-untyped-call]
                    pipe.delete(key)
                    await pipe.execute()
    except WatchError:
        return  # another process holds it
    except Unavailable:
        redis.unreleased[key] = token  # it expires, or the next acquisition releases it first


LOCK_WAIT: Final = "SET LOCAL lock_timeout = '5s'"
CLAIM_FENCE: Final = """
INSERT INTO fences (name, number) VALUES (%(name)s, 1)
ON CONFLICT (name) DO UPDATE SET number = fences.number + 1 RETURNING number
"""


async def fenced(database: Database, name: str) -> Database:
    """Return the database for the new holder of a lease, and exclude the holder before it.

    Every transaction of the returned database raises `Superseded` once another process has called this. Raises
    `Unavailable` while a transaction of the previous holder is still open.
    """
    number = await _claim(database, name)
    return database.with_check(lambda tx: check_fence(tx, name, number))


async def _claim(database: Database, name: str) -> int:
    async with database.transaction() as tx:
        await tx.execute(LOCK_WAIT)
        try:
            async with tx.transaction():
                row = await (await tx.execute(CLAIM_FENCE, {"name": name})).fetchone()
        except psycopg.errors.LockNotAvailable as exc:
            raise Unavailable(f"the previous holder of the lease {name} still has a transaction open") from exc
    assert row is not None  # noqa: S101 the statement always returns a row
    return int(row[0])


CHECK_FENCE: Final = "SELECT number FROM fences WHERE name = %(name)s FOR SHARE"


async def check_fence(tx: Tx, name: str, number: int) -> None:
    """Raise `Superseded` if another process claimed the lease; none can claim it before this transaction ends."""
    row = await (await tx.execute(CHECK_FENCE, {"name": name})).fetchone()
    if row is None or row[0] != number:
        raise Superseded(f"another process took the lease {name}")
