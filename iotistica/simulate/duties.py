"""What a simulated agent does over HTTP, like the real one: polls its target, reports, sends logs, runs jobs."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID

import httpx
import msgspec

from iotistica.simulate.reported_config import as_reported
from iotistica.supervise import sleep

CONNECTIONS: Final = 50  # of all simulated agents together
TIMEOUT_SECONDS: Final = 10.0
JOB_SECONDS: Final = 1.0  # that a simulated job takes


class DutyCounts(msgspec.Struct, kw_only=True):
    """What the simulated agents have done over HTTP; `targets` are polls that brought another target."""

    polls: int = 0
    targets: int = 0
    reports: int = 0
    log_lines: int = 0
    jobs: int = 0
    failed: int = 0

    def text(self) -> str:
        """Return the counts as one line."""
        return (
            f"{self.polls} polls ({self.targets} new targets), {self.reports} reports, {self.log_lines} log lines,"
            f" {self.jobs} jobs, {self.failed} failed requests"
        )


def client(url: str) -> httpx.AsyncClient:
    """Return a client of the API at `url` that all simulated agents share."""
    return httpx.AsyncClient(
        base_url=f"{url}/api/v1",
        limits=httpx.Limits(max_connections=CONNECTIONS),
        timeout=TIMEOUT_SECONDS,
        trust_env=False,  # no proxy: the instance is on this machine or nearby
    )


class AgentDuties:
    """The requests of one agent, each at its own interval."""

    def __init__(
        self, api: httpx.AsyncClient, agent: UUID, key: str, counts: DutyCounts, *, hurry: float = 1.0
    ) -> None:
        """`key` is the agent's API key; `hurry` divides all waits."""
        self._hurry = hurry
        self._api = api
        self._agent = str(agent)
        self._headers = {"X-Device-API-Key": key}
        self._counts = counts
        self._chance = random.Random(self._agent)  # noqa: S311 a simulation
        self._started = time.monotonic()
        self._etag = ""
        self._target: dict[str, Any] = {"apps": {}, "config": {}, "version": 1}
        self._reported: dict[str, Any] = {}
        self._batch = 0

    async def perform(self, stop: asyncio.Event) -> None:
        """Make all requests when they are due, until `stop`."""
        # The first and the usual wait in seconds; the usual ones are those of the real agent.
        duties: dict[Callable[[], Awaitable[None]], tuple[float, float]] = {
            self.poll: (2.0, 60.0),
            self.run_job: (5.0, 30.0),
            self.report: (30.0, 60.0),
            self.send_logs: (30.0, 30.0),
        }
        due = {
            duty: self._started + first * (1 + self._chance.random()) / self._hurry
            for duty, (first, _) in duties.items()
        }
        while not stop.is_set():
            duty = min(due, key=lambda one: due[one])
            await sleep(max(due[duty] - time.monotonic(), 0), stop)
            if stop.is_set():
                return
            try:
                await duty()
            except (httpx.HTTPError, ValueError, KeyError, TypeError):  # the last three: an odd answer
                self._counts.failed += 1
            due[duty] = time.monotonic() + duties[duty][1] / self._hurry

    async def poll(self) -> None:
        """Ask for the target state."""
        headers = {**self._headers, **({"If-None-Match": self._etag} if self._etag else {})}
        answer = await self._api.get(f"/device/{self._agent}/state", headers=headers)
        self._counts.polls += 1
        if answer.status_code == httpx.codes.NOT_MODIFIED:
            return
        answer.raise_for_status()
        self._counts.targets += bool(self._etag)
        self._etag = answer.headers["etag"]
        self._target = answer.json()[self._agent]

    async def report(self) -> None:
        """Report what runs: what the target says, and measured values of the gateway itself."""
        state: dict[str, Any] = {
            "is_online": True,
            "version": self._target.get("version", 1),
            "apps": self._target.get("apps", {}),
            "config": as_reported(self._target.get("config", {})),
            "os_version": "Debian GNU/Linux 12 (bookworm)",
            "agent_version": "1.0.547",
            "architecture": "x64",
        }
        changed = {name: value for name, value in state.items() if self._reported.get(name) != value}
        sent = changed | {name: state[name] for name in ("is_online", "version", "apps")} | self._measured()
        answer = await self._api.patch("/device/state", headers=self._headers, json={self._agent: sent})
        answer.raise_for_status()
        self._reported = state
        self._counts.reports += 1

    async def send_logs(self) -> None:
        """Send the lines since the last time."""
        now = int(time.time() * 1000)
        lines = [
            {
                "timestamp": now - 1000 * seconds,
                "level": "info" if seconds else "debug",
                "message": text,
                "source": {"type": "system", "name": "agent"},
                "isSystem": True,
                "deviceId": self._agent,
            }
            for seconds, text in ((2, "read all registers of plc-001"), (1, "published a batch"), (0, "idle"))
        ]
        self._batch += 1
        headers = {
            **self._headers,
            "Content-Type": "application/x-ndjson",
            "X-Batch-Id": f"{self._agent}-{now}-{self._batch}",
        }
        body = "\n".join(json.dumps(line) for line in lines)
        answer = await self._api.post(f"/device/{self._agent}/logs", headers=headers, content=body)
        answer.raise_for_status()
        self._counts.log_lines += len(lines)

    async def run_job(self) -> None:
        """Claim the next job, if there is one, pretend to run its steps, and say how it ended."""
        claimed = await self._api.get(f"/agents/{self._agent}/jobs/next", headers=self._headers)
        if claimed.status_code == httpx.codes.NOT_FOUND:
            return
        claimed.raise_for_status()
        job = claimed.json()
        number, path = job["execution_number"], f"/agents/{self._agent}/jobs/{job['job_id']}/status"
        steps = job["job_document"].get("steps")
        listed = steps if isinstance(steps, list) else []
        names = [str(step.get("name", "step")) for step in listed if isinstance(step, dict)]
        await self._answer(path, {"status": "IN_PROGRESS", "execution_number": number})
        await asyncio.sleep(JOB_SECONDS)
        ended = {
            "status": "SUCCEEDED",
            "execution_number": number,
            "exit_code": 0,
            "executed_steps": len(names),
            "stdout": "".join(f"{name}: done (simulated)\n" for name in names),
        }
        await self._answer(path, ended)
        self._counts.jobs += 1

    async def _answer(self, path: str, answer: dict[str, Any]) -> None:
        (await self._api.patch(path, headers=self._headers, json=answer)).raise_for_status()

    def _measured(self) -> dict[str, Any]:
        return {
            "cpu_usage": round(self._chance.uniform(3, 25), 1),
            "memory_usage": round(self._chance.uniform(300, 600)),
            "memory_total": 2048,
            "storage_usage": 4100,
            "storage_total": 14_800,
            "uptime": round(time.monotonic() - self._started),
        }
