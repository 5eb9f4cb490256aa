"""The composition root: builds the task groups of a process from its settings and runs them."""

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
from iotistica.alerting.alarm_sharing import share_alarms
from iotistica.alerting.announcing import Announcer
from iotistica.alerting.rule_runner import RuleRunner
from iotistica.api import app as http
from iotistica.api.http import server
from iotistica.api.http.compression import Compression
from iotistica.api.http.concurrency_limit import ConcurrencyLimit
from iotistica.api.http.dependencies import ServerContext
from iotistica.api.http.poll_fast_path import PollFastPath
from iotistica.background import schedule
from iotistica.background.retention import RetentionLimits
from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.agents.broker_passwords import WATCH_USER, service_password
from iotistica.domain.delivery.fault_attribution import FaultHistory
from iotistica.domain.delivery.topics import Stream
from iotistica.embedded import mosquitto
from iotistica.embedded.account_files import AccountFiles
from iotistica.embedded.servers import Servers
from iotistica.errors import CannotStart, Unavailable
from iotistica.ingest.decoding import Decoder
from iotistica.ingest.dictionary_cache import DictionaryCache
from iotistica.ingest.ordered_consumer import OrderedConsumer
from iotistica.ingest.series_cache import SeriesCache
from iotistica.ingest.worker import Worker
from iotistica.ingest.worker_pool import WorkerPool
from iotistica.mqtt import access_probe, broker_watch, healing
from iotistica.mqtt.intake import Intake
from iotistica.notifications.channels import open_channels
from iotistica.notifications.outbox import Outbox
from iotistica.process_health import ProcessHealth
from iotistica.resources import INGEST_SECONDS, Resources, open_resources
from iotistica.settings import Settings
from iotistica.storage.access.rate_limits import RateLimiter
from iotistica.storage.agents.agent_cache import AgentCache
from iotistica.storage.agents.poll_answer_cache import PollAnswerCache
from iotistica.storage.agents.poll_counts import PollCounts
from iotistica.storage.circuit_breaker import CircuitBreaker
from iotistica.storage.delivery.live_hub import LiveHub
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis
from iotistica.supervise import Group


def open_port(settings: Settings, groups: Sequence[str], environ: Mapping[str, str]) -> socket.socket:
    """Open the only port that a process with these groups listens on; raises `CannotStart`."""
    if "http" in groups:
        return listening_socket.open_socket(settings.listen, settings.http_port, "IOTISTICA_HTTP_PORT", environ)
    return listening_socket.open_socket(settings.listen, settings.ops_port, "IOTISTICA_OPS_PORT", environ)


async def serve(
    settings: Settings,
    groups: list[str],
    key: bytes,
    servers: Servers | None,
    listener: socket.socket,
    *,
    with_demo: bool = False,
) -> bool:
    """Run these groups until a signal; return whether the process must restart. Raises `CannotStart`."""
    instruments.start()
    async with open_resources(settings, key, servers, listener) as resources:
        running: dict[str, Group] = {}
        for group in groups:
            running |= BUILDERS[group](resources, groups)
        running["alarms"] = share_alarms(resources.redis, resources.process_health.alarms.raised)
        if "http" not in groups:
            running["ops"] = _ops(listener, resources.worker, resources.redis, groups, resources.process_health)
        if servers is not None:
            running |= _embedded(servers, key, resources.worker)
        if with_demo:
            from iotistica.simulate import demo  # imported late: nothing else needs its HTTP client

            running["demo"] = await demo.prepare(resources.worker, key, settings, resources.mqtt_url)
        return await supervise.run(running, drain_seconds=settings.drain_seconds)


async def broker(settings: Settings, key: bytes, servers: Servers, listener: socket.socket) -> bool:
    """Run the embedded Mosquitto and maintain its accounts until a signal; needs no Redis.

    For a separate container; returns whether the process must restart. Raises `CannotStart`.
    """
    instruments.start()
    database = Database(
        settings.database_url, size=4, name="broker", role="iotistica_worker", statement_seconds=INGEST_SECONDS
    )
    await database.open()
    try:
        process_health = ProcessHealth(breakers=[database.breaker])
        running = {
            "ops": _ops(listener, database, None, ["broker"], process_health),
            **_embedded(servers, key, database),
        }
        return await supervise.run(running, drain_seconds=settings.drain_seconds)
    finally:
        await database.close()


def _http(resources: Resources, groups: list[str]) -> dict[str, Group]:
    settings = resources.settings
    context = ServerContext(settings=settings, key=resources.key, broker=settings.agents_broker())
    inbox, agent_cache = resources.inbox("http"), AgentCache(resources.worker)
    poll_counts, live_hub = PollCounts(resources.worker), LiveHub(resources.redis)

    poll_answer_cache = PollAnswerCache(agent_cache, resources.api, resources.redis, resources.key)
    # Created before any group runs: it takes up to a second, in which no other group of the process can run, and
    # some wait for a connection to PostgreSQL no longer than that.
    app = http.create(
        database=resources.api,
        platform_database=resources.worker,
        redis=resources.redis,
        inbox=inbox,
        process_health=resources.process_health,
        context=context,
        agent_cache=agent_cache,
        poll_answer_cache=poll_answer_cache,
        poll_counts=poll_counts,
        timeline_counts=resources.timeline_counts,
        live_hub=live_hub,
        roles=groups,
    )
    quick = PollFastPath(
        Compression(ConcurrencyLimit(app)),
        agent_cache=agent_cache,
        poll_answer_cache=poll_answer_cache,
        poll_counts=poll_counts,
        key=resources.key,
    )

    async def run(stop: asyncio.Event) -> None:
        with suppress(Unavailable):  # in time for the first request; the database can fail soon after
            await agent_cache.refresh()
        await server.serve(quick, stop, listener=resources.listener, proxies=settings.trusted_proxies)

    return {
        "http": run,
        "http-spool": inbox.run,
        "agent-cache": agent_cache.run,
        "poll-counts": poll_counts.run,
        "timeline-counts": resources.timeline_counts.run,
        "live": live_hub.run,
    }


def _ops(
    listener: socket.socket,
    platform_database: Database,
    redis: Redis | None,
    groups: list[str],
    process_health: ProcessHealth,
) -> Group:
    async def run(stop: asyncio.Event) -> None:
        app = http.create_ops(
            platform_database=platform_database, redis=redis, roles=groups, process_health=process_health
        )
        await server.serve(app, stop, listener=listener)

    return run


def _mqtt(resources: Resources, _: list[str]) -> dict[str, Group]:
    if not resources.mqtt_url:
        raise CannotStart("There is no MQTT broker. Set IOTISTICA_MQTT_URL.")
    broker = resources.servers.broker if resources.servers is not None else None

    def opened() -> None:
        if broker is not None:
            # Makes Mosquitto save the intake's session now: killed before its next save, it would forget it and
            # drop messages until the intake has connected again.
            broker.signal(signal.SIGUSR1)

    breaker = CircuitBreaker("broker")
    resources.process_health.breakers.append(breaker)
    inbox, alarms = resources.inbox("mqtt"), resources.process_health.alarms
    watcher = WATCH_USER, service_password(resources.key, WATCH_USER)

    async def watched(stop: asyncio.Event) -> None:
        watch = broker_watch.BrokerWatch(alarms, limit=resources.settings.broker_queue_mb << 20)
        await broker_watch.run(
            access_probe.as_account(resources.mqtt_url, watcher),
            watch,
            resources.redis,
            resources.timeline_counts,
            stop,
        )

    intake = Intake(
        resources.redis, inbox, url=resources.mqtt_url, alarms=alarms, breaker=breaker, opened=opened, watch=watched
    )

    async def run(stop: asyncio.Event) -> None:
        accounts = [(name, service_password(resources.key, name)) for name in mosquitto.PROBE_USERS]
        await access_probe.prove_confined(resources.mqtt_url, accounts, ours=broker is not None)
        await intake.run(stop)

    async def heal(stop: asyncio.Event) -> None:
        await healing.run(resources.worker, resources.mqtt_url, resources.key, stop)

    return {"mqtt": run, "mqtt-spool": inbox.run, "healing": heal, "timeline-counts": resources.timeline_counts.run}


def _ingest(resources: Resources, _: list[str]) -> dict[str, Group]:
    redis, database, directory = resources.redis, resources.worker, resources.directory
    series_cache, rate_limiter, fault_history = SeriesCache(), RateLimiter(redis), FaultHistory()
    dictionaries, profile = DictionaryCache(redis, database), resources.settings.profile
    decoder = Decoder(directory, dictionaries, retention_days=resources.settings.retention_days)
    # With the built-in Redis the consumers' names are fixed, so that entries pending after a crash are read again
    # at once. With a shared Redis two processes must not have the same names; another consumer takes over their
    # pending entries after a minute.
    has_own_redis = resources.servers is not None and not resources.settings.redis_url
    host = "worker" if has_own_redis else f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    def make_worker(number: int) -> Group:
        return Worker(
            f"{host}-{number}",
            redis=redis,
            database=database,
            directory=directory,
            decoder=decoder,
            series_cache=series_cache,
            rate_limiter=rate_limiter,
            fault_history=fault_history,
            alarms=resources.process_health.alarms,
            disk_space=resources.disk_space,
            messages=profile.messages,
            longest_idle=profile.longest_idle,
        ).run

    pool = WorkerPool(
        make_worker,
        profile=profile,
        redis=redis,
        database=database,
        directory=directory,
        high_water_mark=resources.settings.stream_mark,
    )
    resources.process_health.workers.append(lambda: (pool.workers, profile.least, profile.most))
    box = SecretBox(resources.key)
    applied: tuple[Stream, ...] = ("control", "logs")
    groups: dict[str, Group] = {
        name: OrderedConsumer(name, redis=redis, database=database, directory=directory, box=box).run
        for name in applied
    }
    groups["rules"] = RuleRunner(redis, database, Announcer(box, resources.settings.site_url)).run
    return {"ingest": pool.run, **groups}


def _background(resources: Resources, _: list[str]) -> dict[str, Group]:
    settings = resources.settings

    async def run(stop: asyncio.Event) -> None:
        await schedule.run(
            stop,
            redis=resources.redis,
            database=resources.worker,
            directory=resources.directory,
            ages=RetentionLimits(
                raw=settings.retention_days,
                minutes=settings.minutes_days,
                hours=settings.hours_days,
                bytes=int(settings.budget_gb * 1e9),
            ),
            process_health=resources.process_health,
            disk_space=resources.disk_space,
            silence=timedelta(minutes=settings.offline_minutes),
        )

    outbox = Outbox(resources.redis, resources.worker, SecretBox(resources.key), open_channels(settings))
    return {"background": run, "notifications": outbox.run}


def _embedded(servers: Servers, key: bytes, database: Database) -> dict[str, Group]:
    groups: dict[str, Group] = {"servers": servers.watch}
    if servers.broker is not None and servers.files is not None:
        reload = servers.broker.signal
        groups["accounts"] = AccountFiles(
            servers.home, servers.files, key=key, database=database, reload=reload
        ).run
    return groups


BUILDERS: Final[dict[str, Callable[[Resources, list[str]], dict[str, Group]]]] = {
    "http": _http,
    "mqtt": _mqtt,
    "ingest": _ingest,
    "background": _background,
}
