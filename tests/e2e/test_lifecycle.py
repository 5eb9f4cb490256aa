"""Starting, stopping and crashing: nothing is left behind, and nothing blocks the next start."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from iotistica.embedded import mosquitto
from iotistica.embedded.child_process import accepts
from iotistica.embedded.data_folder import DataFolder
from iotistica.roles import ROLES
from tests.conftest import Stack, new_stack
from tests.devices import Device, key_for
from tests.mqtt311 import Client311
from tests.serving import Served, free_port, new_data_folder, served, until

READING = json.dumps({"metric": "temperature", "value": 21.5}).encode()
COMBINATIONS = [c for size in range(1, len(ROLES) + 1) for c in itertools.combinations(ROLES, size)]
ALONE_OR_ALMOST_ALL = (1, len(ROLES) - 1, len(ROLES))  # how many roles are tried in every run


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Servers of this file's own, so that no session or lease of another is inherited."""
    with new_stack() as running:
        yield running


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def metric(server: Served, name: str, port: int | None = None) -> float:
    text = httpx.get(f"http://127.0.0.1:{port or server.http_port}/metrics").text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def stores_a_reading(server: Served, agent: dict[str, str], client: httpx.Client) -> None:
    """Publish one reading and wait until it can be read; agents try again, so this does too."""
    answer = client.get(f"/ingestion/ledger?agent={agent['uuid']}")
    assert answer.status_code == 200, answer.text
    before = answer.json()["readings"]["stored"]

    def published() -> bool:
        with (
            contextlib.suppress(OSError),
            Client311(server.mqtt_port, agent["username"], agent["password"]) as device,
        ):
            device.publish(f"{agent['topic']}/endpoints/modbus", READING)
            return True
        return False

    def stored() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            answer = client.get(f"/ingestion/ledger?agent={agent['uuid']}")
            return answer.status_code == 200 and answer.json()["readings"]["stored"] > before
        return False

    until(published, what="published")
    until(stored, what="stored")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with new_data_folder() as path:
        yield path


@pytest.mark.parametrize(
    "roles",
    [
        pytest.param(roles, id="+".join(roles), marks=() if len(roles) in ALONE_OR_ALMOST_ALL else pytest.mark.slow)
        for roles in COMBINATIONS
    ],
)
def test_every_combination_of_roles_starts_and_stops(folder: Path, roles: tuple[str, ...]) -> None:
    """Each process tells its health and ends with 0 at a signal, whatever it consists of."""
    server = Served(folder).start("--roles", ",".join(roles))
    groups = {group for role in roles for group in ROLES[role]}
    port = server.http_port if "http" in groups else server.ops_port
    try:
        server.ready(port)
        health = httpx.get(f"http://127.0.0.1:{port}/health").json()
        assert set(health["roles"]) == groups
        assert metric(server, "iotistica_group_restarts", port) == 0, server.text()
    finally:
        code = server.stop()
    assert code == 0, server.text()


@pytest.mark.built_in_postgres
def test_ctrl_c_ends_everything(folder: Path) -> None:
    """An interrupt drains, stops the servers and leaves no process behind."""
    server = Served(folder).start().ready()
    children = server.runtime().children.values()
    assert len(children) == 3
    assert all(alive(pid) for pid in children)
    assert server.stop(signal.SIGINT) == 0
    assert not any(alive(pid) for pid in children)


def test_a_crash_leaves_nothing_that_blocks_the_next_start() -> None:
    """After kill -9 no child survives, the next start succeeds and what was stored is there."""
    with new_data_folder() as folder:
        server = Served(folder).start().ready()
        tenant = server.add_tenant("crash")
        agent = server.add_agent("crash")
        stores_a_reading(server, agent, server.login(tenant))
        children = server.runtime().children.values()
        server.kill()
        until(lambda: not any(alive(pid) for pid in children), what="the children to end")
        again = Served(folder).start().ready()
        try:
            client = again.login(tenant)
            assert client.get(f"/readings/{agent['uuid']}/latest").json()["count"] == 1
            stores_a_reading(again, agent, client)
        finally:
            assert again.stop() == 0


@pytest.mark.built_in_postgres
def test_an_interrupted_first_start_is_begun_again() -> None:
    """Killed while the database is being made, the next start makes it."""
    with new_data_folder() as folder:
        server = Served(folder).start()
        until(
            lambda: (folder / "servers" / "postgres.new" / "PG_VERSION").exists(), what="the database in the making"
        )
        server.kill()
        assert not (folder / "servers" / "postgres").exists()
        again = Served(folder).start().ready()
        assert again.stop() == 0


@pytest.mark.built_in_postgres
def test_what_an_operator_sets_in_postgresql_outlasts_a_restart(folder: Path) -> None:
    """Our settings are in force, and ALTER SYSTEM overrules them at the next start too."""
    for shown in ("256MB", "64MB"):
        server = Served(folder).start().ready()
        with psycopg.connect(server.runtime().database_url, autocommit=True) as connection:
            assert connection.execute("SHOW shared_buffers").fetchone() == (shown,)
            assert connection.execute("SHOW max_locks_per_transaction").fetchone() == ("256",)
            connection.execute("ALTER SYSTEM SET shared_buffers = '64MB'")
        assert server.stop() == 0


@pytest.mark.parametrize(
    "victim", [pytest.param("postgres", marks=pytest.mark.built_in_postgres), "redis", "mosquitto"]
)
def test_a_killed_server_is_started_again_and_the_flow_goes_on(server: Served, victim: str) -> None:
    """Whatever group that costs its connection starts again, and the next reading is stored."""
    tenant = server.add_tenant(f"killed {victim}")
    agent, client = server.add_agent(tenant), server.login(tenant)
    stores_a_reading(server, agent, client)
    before = server.runtime().children[victim]
    os.kill(before, signal.SIGKILL)
    until(lambda: server.runtime().children[victim] != before, what="a new process")
    server.ready()
    stores_a_reading(server, agent, client)
    if victim != "postgres":  # whose pool comes back without any group noticing, if nothing was in flight
        assert metric(server, "iotistica_group_restarts") > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs its servers as another user")
def test_a_folder_that_the_servers_user_cannot_reach_is_left_to_root() -> None:
    """Their data goes to /var/lib/iotistica, the log says so, and the next start finds it there."""
    with new_data_folder() as outer:
        outer.chmod(0o700)
        folder = outer / "data"
        folder.mkdir()
        elsewhere = None
        try:
            for times in (1, 2):
                server = Served(folder).start().ready()
                elsewhere = (folder / "servers").resolve()
                assert str(elsewhere).startswith("/var/lib/iotistica/")
                assert server.text().count("the servers' data is stored in another folder") >= times
                assert len(server.command("tenants", "list").stdout.splitlines()) == times
                server.add_tenant(f"tenant {times}")
                assert server.stop() == 0
        finally:
            if elsewhere is not None:
                shutil.rmtree(elsewhere, ignore_errors=True)


def test_a_restart_leaves_no_gap(folder: Path) -> None:
    """Whoever polls while a process starts anew waits for the answer: two failed polls would silence an agent."""
    server = Served(folder).start().ready()
    opened = server.text().count("HTTP server started")
    answers: list[int | str] = []
    done = threading.Event()
    try:
        device = Device(server).join(key_for(server.login()))
        url, headers = f"{device.base}/device/{device.uuid}/state", {"X-Device-API-Key": device.api_key}

        def poll() -> None:
            while not done.is_set():
                try:
                    answers.append(httpx.get(url, headers=headers, timeout=30).status_code)
                except httpx.HTTPError as exc:
                    answers.append(repr(exc))

        polling = [threading.Thread(target=poll) for _ in range(3)]
        for thread in polling:
            thread.start()
        for times in (1, 2):
            before = len(answers)
            answer = server.command("restart")
            assert answer.returncode == 0, answer.stderr + server.text()
            server.ready()
            assert server.text().count("HTTP server started") == opened + times
            until(lambda: len(answers) > before + 100)  # noqa: B023 called at once
    finally:
        done.set()
        for thread in polling:
            thread.join()
        assert server.stop() == 0
    assert set(answers) == {200}


def test_a_restart_that_is_followed_by_an_end_is_an_end(folder: Path) -> None:
    """Whoever stops the process while it drains does not find it running again."""
    server = Served(folder).start().ready()
    assert server.process is not None
    server.process.send_signal(signal.SIGUSR2)
    time.sleep(0.05)
    assert server.stop() == 0
    assert server.text().count("stopping") >= 1
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{server.http_port}/health", timeout=2)


AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.executable, [sys.executable, "-m", "iotistica", "serve", "--roles", "http"])
"""


@pytest.mark.parametrize("listens", [True, False])
def test_a_port_that_somebody_opened_for_us_is_taken_over(folder: Path, stack: Stack, listens: bool) -> None:
    """As systemd hands it on, as descriptor 3; one that does not listen ends the process with the reason."""
    server = Served(folder, **stack.urls())
    with socket.socket() as listener, server.log.open("wb") as log:
        listener.bind(("127.0.0.1", 0))
        if listens:
            listener.listen()
        number = listener.fileno()
        command = [sys.executable, "-c", AS_SYSTEMD, str(number)]
        server.process = subprocess.Popen(
            command, env=server.environment, stdout=log, stderr=log, pass_fds=[number]
        )
        if listens:
            assert server.ready(listener.getsockname()[1]).stop() == 0
        else:
            assert server.process.wait(30) == 1
            assert "descriptor 3 is not a TCP socket that listens" in server.text().splitlines()[-1]


def test_a_second_instance_on_the_same_folder_refuses(server: Served) -> None:
    """It names the folder and the process that has it."""
    assert server.process is not None
    done = Served(server.folder).start()
    assert done.process is not None
    assert done.process.wait(30) == 1
    assert f"{server.folder} is in use by another instance (process {server.process.pid})" in server.text()


@pytest.mark.parametrize(("setting", "what"), [("HTTP", "Cannot listen on"), ("MQTT", "MQTT cannot listen on")])
def test_a_taken_port_ends_the_process_with_what_to_do(folder: Path, setting: str, what: str) -> None:
    """A role that cannot start ends the process with a message and a code."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = Served(folder, **{f"IOTISTICA_{setting}_PORT": str(port)}).start()
        assert server.process is not None
        assert server.process.wait(30) == 1
    last = server.text().splitlines()[-1]
    assert last.startswith(f"iotistica: {what} 127.0.0.1:{port}")
    assert f"IOTISTICA_{setting}_PORT" in last


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--roles", "api,cook"], {}, "Unknown role 'cook'"),
        ([], {"IOTISTICA_HTTP_PORT": "99999"}, "IOTISTICA_HTTP_PORT must be at most 65535; it is 99999"),
        ([], {"IOTISTICA_SECRET_KEY": "short"}, "must hold 64 hex characters"),
        ([], {"IOTISTICA_DATABASE_URL": "postgresql://127.0.0.1:1/none"}, "Cannot reach PostgreSQL"),
        ([], {"IOTISTICA_CONFIG": "/does/not/exist.toml"}, "Cannot read the configuration file"),
        ([], {"IOTISTICA_DATA_DIR": "/proc/nowhere"}, "Cannot create the data folder"),
    ],
)
def test_a_bad_setting_ends_the_process_with_what_to_do(
    folder: Path, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    """One line, no traceback, and a code that is not 0."""
    server = Served(folder, **environment)
    server.log.unlink(missing_ok=True)
    server.start(*arguments)
    assert server.process is not None
    assert server.process.wait(30) == 1
    assert message in server.text().splitlines()[-1]
    assert "Traceback" not in server.text()


def test_an_open_broker_is_refused(stack: Stack) -> None:
    """A broker that lets clients in without a password ends the process."""
    with new_data_folder() as folder:
        program, libraries = mosquitto._program(DataFolder(folder, folder, stack.servers.home.owner))
        port = free_port()
        (folder / "open.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
        environment = {"LD_LIBRARY_PATH": libraries}
        broker = subprocess.Popen([program, "-c", folder / "open.conf"], env=environment, stderr=subprocess.DEVNULL)
        try:
            urls = stack.urls() | {"IOTISTICA_MQTT_URL": f"mqtt://a:b@127.0.0.1:{port}"}
            until(lambda: accepts("127.0.0.1", port), what="the broker")
            server = Served(folder, **urls).start("--roles", "mqtt")
            assert server.process is not None
            assert server.process.wait(30) == 1
            assert "accepts clients without a password" in server.text().splitlines()[-1]
        finally:
            broker.terminate()
            broker.wait(10)


def test_a_standby_takes_over_the_intake_with_its_queue(stack: Stack) -> None:
    """Two processes on the same servers: one has the intake; when it is killed the other goes on."""
    with served(**stack.urls()) as first:
        tenant = first.add_tenant("takeover")
        agent = first.add_agent("takeover")
        stack.render_accounts()
        until(lambda: "intake is open" in first.text(), what="the first intake")
        with served(**stack.urls()) as second:
            until(lambda: "waiting for a lease" in second.text(), what="the standby")
            client = second.login(tenant)
            first.mqtt_port = second.mqtt_port = stack.settings.mqtt_port
            stores_a_reading(second, agent, client)
            first.kill()
            for _ in range(5):
                with Client311(second.mqtt_port, agent["username"], agent["password"]) as device:
                    device.publish(f"{agent['topic']}/endpoints/modbus", READING)
            until(
                lambda: client.get(f"/ingestion/ledger?agent={agent['uuid']}").json()["readings"]["stored"] == 6,
                seconds=40,
                what="the queue of the first",
            )
