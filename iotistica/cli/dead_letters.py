"""The commands that list, show, replay and discard dead letters."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import click

from iotistica.cli.arguments import TENANT, command_actor, format_list, printable
from iotistica.cli.database import database_and_redis_urls, find_tenant, opened, run
from iotistica.domain.ids import TenantId
from iotistica.errors import NotFound
from iotistica.settings import Settings
from iotistica.storage import redis as redis_
from iotistica.storage.delivery import dead_letter_replay
from iotistica.storage.delivery import dead_letters as dead_letters_
from iotistica.storage.delivery.dead_letters import DeadLetter
from iotistica.storage.history import audit
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

T = TypeVar("T")

REASON = click.option("--reason", help="Only dead letters with this reason.")
IDS = click.argument("ids", nargs=-1, metavar="[ID]...")
ALL = click.option("--all", "every", is_flag=True, help="All dead letters of the tenant.")


@click.group("dead-letters")
def dead_letters() -> None:
    """Manage dead letters (messages that could not be processed).

    A dead letter keeps the payload of the message and the reason why it could not be processed.
    """


@dead_letters.command("list")
@TENANT
@click.option("--platform", is_flag=True, help="Only dead letters that belong to no existing tenant.")
@REASON
@click.option(
    "--limit", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Maximum number to list."
)
@click.pass_obj
def list_(settings: Settings, tenant: str, platform: bool, reason: str | None, limit: int) -> None:
    """List dead letters, the oldest first.

    The columns are id, time received, reason, attempts, size in bytes, topic and detail.
    """

    async def work(redis: Redis, _: Database, owner: TenantId | None) -> list[str]:
        page = await dead_letters_.page(redis, owner, after=None, limit=limit, reason=reason)
        lines = [
            f"{x.id}  {x.received:%Y-%m-%d %H:%M:%S}  {x.reason:16} x{x.attempts}"
            f"  {x.size if x.size >= 0 else 'large':>8}  {printable(x.topic)}  {printable(x.detail)}".rstrip()
            for x in page.letters
        ]
        return lines + (["(there are more; raise --limit)"] if page.next else [])

    click.echo(format_list(_work(settings, None if platform else tenant, work), "none"))


@dead_letters.command("show")
@click.argument("id_", metavar="ID")
@TENANT
@click.option("--platform", is_flag=True, help="A dead letter that belongs to no existing tenant.")
@click.option("--raw", is_flag=True, help="Write only the payload, byte for byte as it was received.")
@click.pass_obj
def show(settings: Settings, id_: str, tenant: str, platform: bool, raw: bool) -> None:
    """Show one dead letter with its payload."""

    async def work(redis: Redis, _: Database, owner: TenantId | None) -> DeadLetter:
        letter = await dead_letters_.get(redis, owner, id_)
        if letter is None:
            raise NotFound(
                f"There is no dead letter {id_}. `iotistica dead-letters list` lists the dead letters of a tenant."
            )
        return letter

    letter = _work(settings, None if platform else tenant, work)
    if raw:
        sys.stdout.buffer.write(letter.payload)
        return
    for name, value in {
        "id": letter.id,
        "received": f"{letter.received:%Y-%m-%d %H:%M:%S.%f} UTC",
        "failed at": f"{letter.at:%Y-%m-%d %H:%M:%S.%f} UTC",
        "topic": printable(letter.topic),
        "reason": letter.reason,
        "detail": printable(letter.detail),
        "attempts": str(letter.attempts),
        "bytes": f"{len(letter.payload)} of {letter.size if letter.size >= 0 else 'more'}",
    }.items():
        click.echo(f"{name:10} {value}")
    click.echo(_dump(letter.payload[:2000]))


@dead_letters.command("replay")
@IDS
@REASON
@ALL
@TENANT
@click.pass_obj
def replay(settings: Settings, ids: tuple[str, ...], reason: str | None, every: bool, tenant: str) -> None:
    """Process dead letters again.

    Choose them by ID, by --reason, or with --all. Each message returns to the stream in which it failed. Readings
    that were already stored are not stored twice.
    """
    _check(ids, reason, every)

    async def work(redis: Redis, database: Database, owner: TenantId | None) -> tuple[int, int]:
        assert owner is not None  # noqa: S101 a tenant is named
        return await _each(
            *(redis, database, owner, "dead_letters.replay", ids, reason),
            lambda letters: dead_letter_replay.replay(redis, owner, letters, high_water_mark=settings.stream_mark),
        )

    done, chosen = _work(settings, tenant, work)
    click.echo(f"{done} replayed")
    if done < chosen:
        click.echo(
            f"{chosen - done} not replayed: only the head of the payload is kept,"
            " or another operator replayed or discarded them first"
        )


@dead_letters.command("discard")
@IDS
@REASON
@ALL
@TENANT
@click.pass_obj
def discard(settings: Settings, ids: tuple[str, ...], reason: str | None, every: bool, tenant: str) -> None:
    """Delete dead letters permanently.

    Choose them by ID, by --reason, or with --all.
    """
    _check(ids, reason, every)

    async def work(redis: Redis, database: Database, owner: TenantId | None) -> tuple[int, int]:
        assert owner is not None  # noqa: S101 a tenant is named
        return await _each(
            *(redis, database, owner, "dead_letters.discard", ids, reason),
            lambda letters: dead_letter_replay.discard(redis, owner, letters),
        )

    click.echo(f"{_work(settings, tenant, work)[0]} discarded")


def _check(ids: Sequence[str], reason: str | None, every: bool) -> None:
    if (len(ids) > 0) + (reason is not None) + every != 1:
        raise click.UsageError("Choose the dead letters by exactly one of: IDs, --reason, --all.")


async def _each(
    redis: Redis,
    database: Database,
    tenant: TenantId,
    action: str,
    ids: Sequence[str],
    reason: str | None,
    deal: Callable[[Sequence[DeadLetter]], Awaitable[int]],
) -> tuple[int, int]:
    """Apply `deal` to the chosen letters and record the action in the audit log.

    Letters that arrive meanwhile are left alone. Returns how many letters were changed, and how many were chosen.
    """
    done, chosen, after = 0, 0, None
    until = await dead_letters_.newest_id(redis, tenant)
    if ids:
        letters = await dead_letters_.get_many(redis, tenant, ids)
        if missing := set(ids) - {letter.id for letter in letters}:
            raise NotFound(f"There is no dead letter {', '.join(sorted(missing))}. Nothing was changed.")
        done, chosen = await deal(letters), len(letters)
    while not ids:
        page = await dead_letters_.page(redis, tenant, after=after, limit=dead_letters_.CHANGE_LIMIT, reason=reason)
        letters = [letter for letter in page.letters if _key(letter.id) <= _key(until)]
        done, chosen = done + await deal(letters), chosen + len(letters)
        after = page.next
        if after is None or len(letters) < len(page.letters):
            break
    subject = ("dead_letters", reason or (f"{len(ids)} ids" if ids else "all"))
    async with database.transaction() as tx:
        await audit.record(tx, tenant, command_actor(), action, subject, after={"letters": done})
    return done, chosen


def _key(id_: str) -> tuple[int, int]:
    ms, part = id_.split("-")
    return int(ms), int(part)


def _work(
    settings: Settings, tenant: str | None, work: Callable[[Redis, Database, TenantId | None], Awaitable[T]]
) -> T:
    async def inside(database_url: str, redis_url: str) -> T:
        redis = redis_.client(redis_url)
        try:
            async with opened(database_url) as database:
                async with database.transaction() as tx:
                    owner = await find_tenant(tx, tenant) if tenant else None
                return await work(redis, database, owner)
        finally:
            await redis.aclose()

    with database_and_redis_urls(settings) as (database_url, redis_url):
        return run(inside(database_url, redis_url))


def _dump(payload: bytes) -> str:
    """Return a printable payload as text, any other payload as a hexadecimal dump."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        text = ""
    if text and all(c.isprintable() or c in "\r\n\t" for c in text):
        return text
    rows = (payload[at : at + 16] for at in range(0, len(payload), 16))
    return "\n".join(f"{16 * n:06x}  {row.hex(' '):47}  {_ascii(row)}" for n, row in enumerate(rows))


def _ascii(row: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
