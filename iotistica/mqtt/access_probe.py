"""Checks at start-up that the broker rejects anonymous clients and confines each agent to its own topics."""

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlsplit

from loguru import logger

from iotistica.errors import CannotStart, Refused, Unavailable
from iotistica.mqtt.client import Client, connect

SECONDS: Final = 5.0  # wait for a message that must arrive

Account = tuple[str, str]
"""User name and password."""


async def prove_confined(url: str, accounts: Sequence[Account], *, ours: bool) -> None:
    """Raise `CannotStart` if a client can connect without a password, or an agent can use another agent's topics.

    `accounts` are three accounts of the broker: the first sees the topics of the other two, which are confined as
    agents are. `ours` is whether the broker is the embedded Mosquitto. An external broker can lack these accounts;
    then only access without a password is checked.
    """
    if await _can_connect(as_account(url, None)):
        raise CannotStart("The broker accepts clients without a password. Set `allow_anonymous false`.")
    if not ours and not await _can_connect(as_account(url, accounts[0])):
        logger.warning("could not check that the external broker confines agents to their own topics")
        return
    observer, first, second = accounts
    nonce = secrets.token_hex(8).encode()
    async with contextlib.AsyncExitStack() as stack:
        observing = await stack.enter_async_context(connect(as_account(url, observer)))
        listening = await stack.enter_async_context(connect(as_account(url, second)))
        await observing.subscribe([f"i/{first[0]}/probe", f"i/{second[0]}/probe"])
        await listening.subscribe(["i/#", "#"])
        await _publish(as_account(url, first), f"i/{second[0]}/probe", b"foreign " + nonce)
        await _publish(as_account(url, first), f"i/{first[0]}/probe", b"own " + nonce)
        observed = await _receive_until(observing, b"own " + nonce)
        await (await observing.publish(f"i/{second[0]}/probe", b"end " + nonce))
        overheard = await _receive_until(listening, b"end " + nonce)
    if b"foreign " + nonce in observed:
        raise CannotStart(
            "The broker lets an agent publish to another agent's topics. Correct the broker's access rules."
        )
    if b"own " + nonce in overheard:
        raise CannotStart(
            "The broker lets an agent read another agent's topics. Correct the broker's access rules."
        )


async def _can_connect(url: str) -> bool:
    try:
        async with connect(url):
            return True
    except (CannotStart, Refused):
        return False


async def _publish(url: str, topic: str, payload: bytes) -> None:
    # The broker answers a refused publish with an error, or closes the connection (Mosquitto 2.0.11).
    with contextlib.suppress(Unavailable):
        async with connect(url) as client, asyncio.timeout(SECONDS):
            await (await client.publish(topic, payload))


async def _receive_until(client: Client, last: bytes) -> set[bytes]:
    """Return the payloads received up to `last`; raises `CannotStart` if `last` does not arrive in time."""
    received: set[bytes] = set()
    try:
        async with asyncio.timeout(SECONDS):
            async for batch in client.batches(asyncio.Event()):
                batch.ack()
                received |= {payload for _, _, payload in batch.messages}
                if last in received:
                    return received
    except TimeoutError as exc:
        raise CannotStart(
            f"The broker did not deliver a test message within {SECONDS:g} s. Check its access rules."
        ) from exc
    return received


def as_account(url: str, account: Account | None) -> str:
    """Return the URL of the same broker with the credentials of `account`, or without credentials."""
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    if account is None:
        return f"{parts.scheme}://{address}"
    return f"{parts.scheme}://{quote(account[0], safe='')}:{quote(account[1], safe='')}@{address}"
