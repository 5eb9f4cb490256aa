"""The composition root: which roles there are, and how their parts are put together."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

from iotistica import instruments, listening_socket, supervise
from iotistica.api import app as http
from iotistica.api.http import server
from iotistica.api.http.concurrency_limit import Crowd
from iotistica.api.http.dependencies import Site
from iotistica.api.http.poll_fast_path import Shortcut
from iotistica.background import schedule
from iotistica.background.retention import Ages
from iotistica.domain.access.document_secrets import Box
from iotistica.domain.agents.broker_passwords import WATCH_USER, service_password
from iotistica.domain.delivery.fault_attribution import Verdicts
from iotistica.domain.delivery.topics import Stream
from iotistica.embedded import mosquitto
from iotistica.embedded.account_files import Accounts
from iotistica.embedded.servers import Servers
from iotistica.errors import CannotStart, Unavailable
from iotistica.ingest.decoding import Decoder
from iotistica.ingest.dictionary_cache import Dictionaries
from iotistica.ingest.ordered_consumer import Control
from iotistica.ingest.series_cache import Catalogue
from iotistica.ingest.worker import Worker
from iotistica.ingest.worker_pool import Crew
from iotistica.mqtt import access_probe, broker_watch, healing
from iotistica.mqtt.intake import Intake
from iotistica.process_health import Vitals
from iotistica.resources import INGEST_SECONDS, Parts, parts_of
from iotistica.settings import Settings
from iotistica.simulate import demo
from iotistica.storage.access.rate_limits import Limits
from iotistica.storage.agents.agent_cache import Roster
from iotistica.storage.agents.poll_answers import Counts, Polls
from iotistica.storage.circuit_breaker import Breaker
from iotistica.storage.delivery.live_hub import Hub
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.supervise import Group, sleep

COUNTS_EVERY: Final = 10.0  # seconds between writes of who asked for its target
GROUPS: Final = ("http", "mqtt", "ingest", "background")
ROLES: Final = {
    "api": ("http", "mqtt", "background"),
    "ingest": ("ingest",),
    "http": ("http",),
    "mqtt": ("mqtt",),
    "background": ("background",),
}


def groups_of(roles: Sequence[str]) -> list[str]:
    """The groups that these roles stand for; none means all. Raises `CannotStart`."""
    unknown = [role for role in roles if role not in ROLES]
    if unknown:
        raise CannotStart(f"unknown role {unknown[0]!r}; there are {', '.join(ROLES)}")
    wanted = {group for role in roles for group in ROLES[role]} or set(GROUPS)
    return [group for group in GROUPS if group in wanted]


def door(settings: Settings, groups: Sequence[str], environ: Mapping[str, str]) -> socket.socket:
    """The one port that a process of these groups listens on; raises `CannotStart`."""
    if "http" in groups:
        return listening_socket.opened(settings.listen, settings.http_port, "IOTISTICA_HTTP_PORT", environ)
    return listening_socket.opened(settings.listen, settings.ops_port, "IOTISTICA_OPS_PORT", environ)


async def serve(
    settings: Settings,
    groups: list[str],
    key: bytes,
    servers: Servers | None,
    listener: socket.socket,
    *,
    with_demo: bool = False,
) -> bool:
    """Run these groups until a signal; whether to start anew. Raises `CannotStart`."""
    instruments.start()
    async with parts_of(settings, key, servers, listener) as parts:
        running: dict[str, Group] = {}
        for group in groups:
            running |= BUILDERS[group](parts, groups)
        if "http" not in groups:
            running["ops"] = _ops(listener, parts.worker, parts.redis, groups, parts.vitals)
        if servers is not None:
            running |= _embedded(servers, key, parts.worker)
        if with_demo:
            running["demo"] = await demo.prepare(parts.worker, key, settings, parts.mqtt_url)
        return await supervise.run(running, drain_seconds=settings.drain_seconds)


async def broker(settings: Settings, key: bytes, servers: Servers, listener: socket.socket) -> bool:
    """Run the broker and give it its accounts until a signal; for its own container, without Redis."""
    instruments.start()
    database = Database(
        settings.database_url, size=4, name="broker", role="iotistica_worker", statement_seconds=INGEST_SECONDS
    )
    await database.open()
    try:
        vitals = Vitals(breakers=[database.breaker])
        running = {"ops": _ops(listener, database, None, ["broker"], vitals), **_embedded(servers, key, database)}
        return await supervise.run(running, drain_seconds=settings.drain_seconds)
    finally:
        await database.close()


def _http(parts: Parts, groups: list[str]) -> dict[str, Group]:
    settings = parts.settings
    site = Site(settings=settings, key=parts.key, broker=settings.agents_broker())
    inbox = parts.inbox("http")
    roster, counts, hub = Roster(parts.worker), Counts(parts.worker), Hub(parts.redis)

    async def counted(stop: asyncio.Event) -> None:
        while not stop.is_set():
            await sleep(COUNTS_EVERY, stop)
            await counts.write()

    async def run(stop: asyncio.Event) -> None:
        with suppress(Unavailable):  # who asks first shall be known, should the database go away then
            await roster.look()
        polls = Polls(roster, parts.api, parts.redis, parts.key)
        app = http.create(
            database=parts.api,
            lookups=parts.worker,
            redis=parts.redis,
            inbox=inbox,
            vitals=parts.vitals,
            site=site,
            roster=roster,
            polls=polls,
            counts=counts,
            tally=parts.tally,
            hub=hub,
            roles=groups,
        )
        quick = Shortcut(Crowd(app), roster=roster, polls=polls, counts=counts, key=parts.key)
        await server.serve(quick, stop, listener=parts.listener, proxies=settings.trusted_proxies)

    return {
        "http": run,
        "http-spool": inbox.run,
        "roster": roster.run,
        "polls": counted,
        "tally": parts.tally.run,
        "live": hub.run,
    }


def _ops(
    listener: socket.socket, lookups: Database, redis: Redis | None, groups: list[str], vitals: Vitals
) -> Group:
    async def run(stop: asyncio.Event) -> None:
        app = http.create_ops(lookups=lookups, redis=redis, roles=groups, vitals=vitals)
        await server.serve(app, stop, listener=listener)

    return run


def _mqtt(parts: Parts, _: list[str]) -> dict[str, Group]:
    if not parts.mqtt_url:
        raise CannotStart("there is no broker: set IOTISTICA_MQTT_URL")
    broker = parts.servers.broker if parts.servers is not None else None

    def opened() -> None:
        if broker is not None:
            # Saves our session now: a broker killed before its next save would forget it, and take messages
            # for nobody until we are back.
            broker.signal(signal.SIGUSR1)

    breaker = Breaker("broker")
    parts.vitals.breakers.append(breaker)
    inbox, alarms = parts.inbox("mqtt"), parts.vitals.alarms
    watcher = WATCH_USER, service_password(parts.key, WATCH_USER)

    async def watched(stop: asyncio.Event) -> None:
        seen = broker_watch.Watch(alarms, limit=parts.settings.broker_queue_mb << 20)
        await broker_watch.run(access_probe.as_account(parts.mqtt_url, watcher), seen, parts.tally, stop)

    intake = Intake(
        parts.redis, inbox, url=parts.mqtt_url, alarms=alarms, breaker=breaker, opened=opened, watch=watched
    )

    async def run(stop: asyncio.Event) -> None:
        accounts = [(name, service_password(parts.key, name)) for name in mosquitto.PROBE_USERS]
        await access_probe.prove_confined(parts.mqtt_url, accounts, ours=broker is not None)
        await intake.run(stop)

    async def heal(stop: asyncio.Event) -> None:
        await healing.run(parts.worker, parts.mqtt_url, parts.key, stop)

    return {"mqtt": run, "mqtt-spool": inbox.run, "healing": heal, "tally": parts.tally.run}


def _ingest(parts: Parts, _: list[str]) -> dict[str, Group]:
    redis, database, directory = parts.redis, parts.worker, parts.directory
    catalogue, limits, verdicts = Catalogue(), Limits(redis), Verdicts()
    dictionaries, profile = Dictionaries(redis, database), parts.settings.profile
    decoder = Decoder(directory, dictionaries, retention_days=parts.settings.retention_days)
    # With a Redis that only we use the name lasts, so that what a crash left open is read again at once.
    # Elsewhere two processes must not share one; what they leave is taken over after a minute.
    alone = parts.servers is not None and not parts.settings.redis_url
    host = "worker" if alone else f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    def hire(number: int) -> Group:
        return Worker(
            f"{host}-{number}",
            redis=redis,
            database=database,
            directory=directory,
            decoder=decoder,
            catalogue=catalogue,
            limits=limits,
            verdicts=verdicts,
            alarms=parts.vitals.alarms,
            room=parts.room,
            messages=profile.messages,
            longest_idle=profile.longest_idle,
        ).run

    mark = parts.settings.stream_mark
    crew = Crew(hire, profile=profile, redis=redis, database=database, directory=directory, mark=mark)
    parts.vitals.workers.append(lambda: (crew.workers, profile.least, profile.most))
    box = Box(parts.key)
    applied: tuple[Stream, ...] = ("control", "logs")
    consumers: dict[str, Group] = {
        name: Control(name, redis=redis, database=database, directory=directory, box=box).run for name in applied
    }
    return {"ingest": crew.run, **consumers}


def _background(parts: Parts, _: list[str]) -> dict[str, Group]:
    settings = parts.settings

    async def run(stop: asyncio.Event) -> None:
        await schedule.run(
            stop,
            redis=parts.redis,
            database=parts.worker,
            directory=parts.directory,
            ages=Ages(
                raw=settings.retention_days,
                minutes=settings.minutes_days,
                hours=settings.hours_days,
                bytes=int(settings.budget_gb * 1e9),
            ),
            vitals=parts.vitals,
            room=parts.room,
            silence=timedelta(minutes=settings.offline_minutes),
        )

    return {"background": run}


def _embedded(servers: Servers, key: bytes, database: Database) -> dict[str, Group]:
    groups: dict[str, Group] = {"servers": servers.watch}
    if servers.broker is not None and servers.files is not None:
        reload = servers.broker.signal
        groups["accounts"] = Accounts(servers.home, servers.files, key=key, database=database, reload=reload).run
    return groups


BUILDERS: Final[dict[str, Callable[[Parts, list[str]], dict[str, Group]]]] = {
    "http": _http,
    "mqtt": _mqtt,
    "ingest": _ingest,
    "background": _background,
}
