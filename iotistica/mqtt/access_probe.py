"""Proves at the start that the broker keeps strangers out and agents to their own topics."""

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlsplit

from loguru import logger

from iotistica.errors import CannotStart, Refused, Unavailable
from iotistica.mqtt.client import Client, connect

SECONDS: Final = 5.0  # for a message that must arrive

Account = tuple[str, str]
"""User name and password."""


async def prove_confined(url: str, accounts: Sequence[Account], *, ours: bool) -> None:
    """Raise `CannotStart` if anybody may connect, or if an agent reaches another's topics.

    `accounts` are three of the broker's: one that sees the topics of the other two, which are confined as
    agents are. A broker that is not `ours` may lack them; then only the first can be proved.
    """
    if await _lets_in(as_account(url, None)):
        raise CannotStart("the broker lets clients in without a password; set `allow_anonymous false`")
    if not ours and not await _lets_in(as_account(url, accounts[0])):
        logger.warning("the broker is not ours: that agents are confined to their topics is taken on trust")
        return
    witness, one, two = accounts
    word = secrets.token_hex(8).encode()
    async with contextlib.AsyncExitStack() as stack:
        service = await stack.enter_async_context(connect(as_account(url, witness)))
        listener = await stack.enter_async_context(connect(as_account(url, two)))
        await service.subscribe([f"i/{one[0]}/probe", f"i/{two[0]}/probe"])
        await listener.subscribe(["i/#", "#"])
        await _publish(as_account(url, one), f"i/{two[0]}/probe", b"foreign " + word)
        await _publish(as_account(url, one), f"i/{one[0]}/probe", b"own " + word)
        got = await _until(service, b"own " + word)
        await (await service.publish(f"i/{two[0]}/probe", b"end " + word))
        heard = await _until(listener, b"end " + word)
    if b"foreign " + word in got:
        raise CannotStart("the broker lets an agent publish under another's topics; refusing to run open")
    if b"own " + word in heard:
        raise CannotStart("the broker lets an agent read another's topics; refusing to run open")


async def _lets_in(url: str) -> bool:
    try:
        async with connect(url):
            return True
    except (CannotStart, Refused):
        return False


async def _publish(url: str, topic: str, payload: bytes) -> None:
    # A refused publish is answered with an error, or with a closed connection (Mosquitto 2.0.11).
    with contextlib.suppress(Unavailable):
        async with connect(url) as client, asyncio.timeout(SECONDS):
            await (await client.publish(topic, payload))


async def _until(client: Client, last: bytes) -> set[bytes]:
    """Everything received up to a message that must come."""
    got: set[bytes] = set()
    try:
        async with asyncio.timeout(SECONDS):
            async for batch in client.batches(asyncio.Event()):
                batch.ack()
                got |= {payload for _, _, payload in batch.messages}
                if last in got:
                    return got
    except TimeoutError as exc:
        raise CannotStart("the broker does not deliver the messages it should; check its access rules") from exc
    return got


def as_account(url: str, account: Account | None) -> str:
    """The URL of the same broker for another account, or for none."""
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    if account is None:
        return f"{parts.scheme}://{address}"
    return f"{parts.scheme}://{quote(account[0], safe='')}:{quote(account[1], safe='')}@{address}"
