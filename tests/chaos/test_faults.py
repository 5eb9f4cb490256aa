"""Faults under a running load: what the platform has acknowledged is stored, once.

The short ones run always. All of them run by `./run test --chaos`, and make the table of docs/delivery.md.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.chaos.plant import APART, WHOLE, Plant, Row, mounted
from tests.serving import new_data_folder

Fault = Callable[[Plant], Awaitable[None]]


async def kill_application(plant: Plant) -> None:
    await plant.kill_process("")
    await plant.ready("")


def kill_role(role: str) -> Fault:
    async def fault(plant: Plant) -> None:
        await plant.kill_process(role)
        await plant.ready(role)

    return fault


def kill_server(name: str, *, down: float = 2.0) -> Fault:
    async def fault(plant: Plant) -> None:
        plant.kill(name)
        await asyncio.sleep(down)
        await plant.revive(name)

    return fault


def freeze_postgres(seconds: float) -> Fault:
    async def fault(plant: Plant) -> None:
        pid = plant.child("postgres").pid
        pids = [
            pid,
            *map(int, subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()),
        ]
        for one in pids:
            os.kill(one, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        for one in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGCONT)

    return fault


async def kill_broker_with_a_queue(plant: Plant) -> None:
    """The intake is away for a while, so that messages wait in the broker when it is killed."""
    plant.processes["mqtt"].kill()
    await asyncio.sleep(4)
    plant.kill("mosquitto")
    await asyncio.sleep(1)
    await plant.revive("mosquitto")
    plant._launch("mqtt")
    await plant.ready("mqtt")


def cut(proxy: str) -> Fault:
    async def fault(plant: Plant) -> None:
        which = plant.mqtt_proxy if proxy == "mqtt" else plant.redis_proxy
        before = which.cuts
        which.cut(40_000)
        while which.cuts == before:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)

    return fault


async def restart(plant: Plant) -> None:
    await plant.restart_process("")
    await plant.ready("")


async def run(plant: Plant, rows: list[Row], name: str, fault: Fault, times: int, **how: float) -> Row:
    """Load for two seconds, the fault so often with a second between, another second, and the reckoning."""
    load = await plant.load(**how)  # type: ignore[arg-type]
    load.start()
    await asyncio.sleep(2)
    for number in range(times):
        if number:
            await asyncio.sleep(1)
        await fault(plant)
    row = await plant.reckon(name, times, readings=int(how.get("readings", 3)))
    rows.append(row)
    print("\n", row)
    return row


def check(row: Row, *, publisher: bool = True) -> None:
    """Nothing that was acknowledged is missing, and nothing is there twice."""
    assert row.stored > 0
    assert (row.lost_by_platform, row.stored_twice) == (0, 0), row
    if publisher:
        assert row.lost_by_publisher == 0, row


SHORT = [
    ("kill -9 of the application", WHOLE, kill_application),
    ("kill -9 of Redis, back after 2 s", WHOLE, kill_server("redis")),
    ("connection to the broker cut at any byte", WHOLE, cut("mqtt")),
]
LONG = [
    *SHORT,
    ("kill -9 of the role mqtt", APART, kill_role("mqtt")),
    ("kill -9 of the role ingest", APART, kill_role("ingest")),
    ("kill -9 of the roles http and background", APART, kill_role("http,background")),
    ("kill -9 of PostgreSQL, back after 2 s", WHOLE, kill_server("postgres")),
    ("kill -9 of Mosquitto, back after 2 s", WHOLE, kill_server("mosquitto")),
    ("kill -9 of Mosquitto with a standing queue", APART, kill_broker_with_a_queue),
    ("PostgreSQL stands still for 20 s", WHOLE, freeze_postgres(20)),
    ("PostgreSQL is away for 60 s", WHOLE, kill_server("postgres", down=60)),
    ("connection to Redis cut at any byte", WHOLE, cut("redis")),
]


@pytest.mark.parametrize(("name", "roles", "fault"), SHORT, ids=[name for name, _, _ in SHORT])
async def test_a_fault_loses_nothing(chaos: Plant, name: str, roles: tuple[str, ...], fault: Fault) -> None:
    """Once, under 200 messages a second."""
    await chaos.start(roles)
    check(await run(chaos, [], name, fault, 1))


@pytest.mark.chaos
@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize(("name", "roles", "fault"), LONG, ids=[name for name, _, _ in LONG])
async def test_every_fault_loses_nothing(
    chaos: Plant, rows: list[Row], name: str, roles: tuple[str, ...], fault: Fault, times: int
) -> None:
    """Each of them once and repeatedly, under 200 messages a second."""
    await chaos.start(roles)
    row = await run(chaos, rows, name, fault, 2 if times > 1 and "0 s" in name else times)
    # A broker that acknowledges before it writes can lose what it has not handed on yet when it is killed itself.
    check(row, publisher="Mosquitto" not in name)


@pytest.mark.chaos
@pytest.mark.parametrize("times", [1, 3])
async def test_a_full_disk_loses_nothing(chaos: Plant, rows: list[Row], times: int) -> None:
    """Redis is away, the spool's disk takes a megabyte; then the intake waits, and says why."""
    with new_data_folder() as parent:
        folder = parent / "spool"
        assert mounted(folder, "1m"), "only an administrator can make the small disk that this needs"
        try:
            await chaos.start(WHOLE, IOTISTICA_SPOOL_DIR=str(folder))
            port = chaos.processes[""].http_port

            async def fault(plant: Plant) -> None:
                plant.kill("redis")
                for _ in range(600):
                    await asyncio.sleep(0.1)
                    alarms = await asyncio.to_thread(_alarms, port)
                    if "intake_paused" in alarms:
                        break
                assert {"intake_paused", "spool_mqtt_broken"} <= alarms
                await plant.revive("redis")

            check(await run(chaos, rows, "full disk under the spool, Redis away", fault, times, a_second=50.0))
            await chaos.end()
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def _alarms(port: int) -> set[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
        return set(json.load(answer).get("alarms", {}))


@pytest.mark.chaos
async def test_a_burst_of_20000_messages_is_stored(chaos: Plant, rows: list[Row]) -> None:
    """As fast as 20 agents can, at default settings."""
    await chaos.start(WHOLE)
    load = await chaos.load(agents=20, a_second=0)
    await load.start(most=1000).finished()
    row = await chaos.reckon("burst of 20,000 messages, unpaced", 1)
    rows.append(row)
    print("\n", row)
    check(row)
    assert row.stored == 20_000


@pytest.mark.chaos
async def test_a_rolling_restart_loses_nothing(chaos: Plant, rows: list[Row]) -> None:
    """SIGTERM and a new process, three times, under 3,000 readings a second."""
    await chaos.start(WHOLE)
    row = await run(
        chaos, rows, "restart (SIGTERM) under 3,000 readings/s", restart, 3, agents=10, a_second=30.0, readings=10
    )
    check(row)


@pytest.mark.chaos
async def test_redis_away_for_two_seconds_is_made_up_for(chaos: Plant, rows: list[Row]) -> None:
    """Under 3,000 readings a second."""
    await chaos.start(WHOLE)
    fault = kill_server("redis", down=2.0)
    row = await run(
        chaos, rows, "Redis away for 2 s under 3,000 readings/s", fault, 1, agents=10, a_second=30.0, readings=10
    )
    check(row)


def test_the_page_has_a_row_for_each_fault() -> None:
    """The table in docs/delivery.md is of a run of all of these."""
    page = (Path(__file__).parents[2] / "docs" / "delivery.md").read_text()
    for name, _, _ in LONG:
        assert f"| {name} |" in page
