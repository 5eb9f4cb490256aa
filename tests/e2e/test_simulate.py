"""The simulated fleet, alone and as the demonstration."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from uuid import uuid4

import httpx

from iotistica.cli.database import opened
from iotistica.domain.ids import TenantId
from iotistica.embedded import data_folder
from iotistica.simulate import duties, fleet
from iotistica.simulate.duties import AgentDuties, DutyCounts
from tests.serving import Served, served, until


def test_a_fleet_with_faults_reports_what_the_ledger_confirms(server: Served) -> None:
    """Every message is acknowledged; found = stored + duplicate + rejected, and nothing is missing."""
    tenant = server.add_tenant("fleet")
    done = server.command(
        *("simulate", "--tenant", "fleet", "--agents", "4", "--messages", "25", "--every", "0.01"),
        *("--encoding", "mix", "--bad", "0.2", "--duplicates", "0.3", "--full", "--readings", "12"),
    )
    assert done.returncode == 0, done.stderr
    assert "4 agents of the tenant fleet send 12 readings every 0.01 s" in done.stderr
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    published = int(facts["published"].split()[0])
    assert int(facts["acknowledged"].split()[0]) == published > 100
    client = server.login(tenant)
    until(
        lambda: client.get("/ingestion/ledger").json()["payloads"]["processed"] == published, what="all processed"
    )
    ledger = client.get("/ingestion/ledger").json()
    readings = ledger["readings"]
    assert readings["found"] == published * 12
    assert readings["found"] == readings["stored"] + readings["duplicate"] + readings["rejected"]
    assert readings["stored"] + readings["rejected"] * 100 / published >= 4 * 25 * 12 * 0.9
    assert readings["duplicate"] > 0
    assert set(readings["rejectedByReason"]) == {"bad_time", "future", "name_too_long", "no_metric", "too_old"}
    assert ledger["payloads"] == {"takenIn": published, "processed": published, "waiting": 0, "deadLettered": 0}


async def test_simulated_agents_do_what_real_ones_do(server: Served) -> None:
    """They fetch their target and report it, send logs and measured values, and run a job to its end."""
    tenant = TenantId(server.add_tenant("duties"))
    owner = server.login(tenant, "owner")
    key = data_folder.server_key(server.folder)
    async with opened(
        server.environment.get("IOTISTICA_DATABASE_URL") or server.runtime().database_url
    ) as database:
        (member,) = await fleet.create_agents(database, key, "duties", 1)
        await fleet.give_keys(database, key, [member])
        await fleet.give_keys(database, key, [member])  # a second run finds them
    agent = member.agent
    endpoint = {"uuid": str(uuid4()), "name": "plc", "protocol": "modbus", "enabled": True}
    target = {"config": {"endpoints": [endpoint | CONNECTION], "logging": {"level": "debug"}}, "apps": {}}
    assert owner.put(f"/agents/{agent}/target-state", json=target).status_code == 200
    document = {"version": "1.0", "steps": [{"name": "restart", "type": "command", "command": "true"}]}
    job = {"job_name": "j", "target_agents": [str(agent)], "job_document": document}
    assert owner.post("/jobs/execute", json=job).status_code == 201
    counts, stop = DutyCounts(), asyncio.Event()
    async with duties.client(f"http://127.0.0.1:{server.http_port}") as api:
        working = asyncio.create_task(
            AgentDuties(api, agent, member.api_key, counts, hurry=20).perform(stop), name="duties"
        )

        def is_done() -> bool:
            explained = owner.get(f"/agents/{agent}/target-state/explain").json()
            (done,) = owner.get(f"/agents/{agent}/jobs").json()["jobs"]
            lines = owner.get(f"/agents/{agent}/logs").json()["count"]
            return bool((explained["verdict"], done["status"]) == ("applied", "SUCCEEDED") and lines)

        async with asyncio.timeout(30):
            while not await asyncio.to_thread(is_done):
                await asyncio.sleep(0.2)
        stop.set()
        await working
    assert counts.failed == 0
    assert counts.polls > counts.targets
    assert min(counts.reports, counts.log_lines, counts.jobs) > 0
    assert owner.get(f"/agents/{agent}").json()["agentVersion"] is not None


CONNECTION = {"pollInterval": 1000, "connection": {"host": "192.0.2.10", "port": 502}, "dataPoints": []}


def test_without_a_running_instance_it_says_what_to_do(tmp_path: object) -> None:
    """One line that names the way out."""
    environment = {"PATH": os.environ["PATH"], "IOTISTICA_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "iotistica", "simulate"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("iotistica: No instance runs on this data folder. Start `iotistica serve`")


def test_the_demonstration_prints_a_command_that_reads_values() -> None:
    """What is printed shows the latest readings, the curl as it stands; a start again prints the same."""
    with served("--demo") as server:
        guide = until(lambda: re.search(r"^ +(curl .*)$", server.text(), re.MULTILINE), what="the guide")

        def values() -> str | None:
            done = subprocess.run(["bash", "-c", guide[1]], capture_output=True, text=True)
            return done.stdout if '"count": 10' in done.stdout else None

        url = re.search(r"http://\S+/latest", guide[1])
        login = re.search(r"Login +(\S+) +password: (\S+)", server.text())
        assert url is not None
        assert login is not None
        base = url[0].partition("/readings/")[0]
        token = httpx.post(f"{base}/auth/login", json={"email": login[1], "password": login[2]}).json()[
            "accessToken"
        ]
        headers = {"Authorization": f"Bearer {token}"}
        until(lambda: httpx.get(url[0], headers=headers).json()["count"] == 10, what="ten series")
        if shutil.which("curl"):  # a bare machine has none
            assert '"metric_name"' in str(until(values, what="the same by curl"))
        assert server.stop(signal.SIGINT) == 0
        again = Served(server.folder, IOTISTICA_HTTP_PORT=str(server.http_port)).start("--demo")
        try:
            until(lambda: server.text().count(guide[1]) == 2, what="the same guide")
        finally:
            assert again.stop() == 0
