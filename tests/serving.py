"""Runs `iotistica serve` as a process on a data folder of its own, and talks to it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from iotistica.embedded.child_process import free_port
from iotistica.embedded.data_folder import Runtime
from tests import databases

__all__ = ["free_port"]

ADMIN = ("owner@example.com", "a-password-for-tests")


@contextlib.contextmanager
def new_data_folder() -> Iterator[Path]:
    """A folder that the servers' own user can reach, unlike pytest's."""
    path = Path(tempfile.mkdtemp(prefix="iotistica-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        databases.drop_of_folder(path)
        shutil.rmtree(path, ignore_errors=True)


def until(condition: Callable[[], Any], seconds: float = 60.0, what: str = "") -> Any:
    """Wait for a condition; its value."""
    end, pause = time.monotonic() + seconds, 0.02
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(pause)
        pause = min(pause * 1.1, 0.2)  # a long wait must not reach the rate limit of the user who looks


class Served:
    """One process of `iotistica serve`."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.http_port, self.mqtt_port, self.ops_port = free_port(), free_port(), free_port()
        self.environment = {
            "PATH": os.environ["PATH"],
            "IOTISTICA_DATA_DIR": str(folder),
            "IOTISTICA_HTTP_PORT": str(self.http_port),
            "IOTISTICA_MQTT_PORT": str(self.mqtt_port),
            "IOTISTICA_OPS_PORT": str(self.ops_port),
            "IOTISTICA_ADMIN_EMAIL": ADMIN[0],
            "IOTISTICA_ADMIN_PASSWORD": ADMIN[1],
            "IOTISTICA_DISK_RESERVE_MB": "1",  # wherever the tests run
            "IOTISTICA_LOGIN_LIMIT": "100000",  # every test logs in from one address
            **environment,
        }
        if url := databases.of_folder(folder):
            self.environment.setdefault("IOTISTICA_DATABASE_URL", url)
        self.log = folder / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.clients: list[httpx.Client] = []

    def start(self, *arguments: str) -> "Served":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "iotistica", "serve", *arguments],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def ready(self, port: int | None = None, seconds: float = 60.0) -> "Served":
        """Wait until it says it is ready."""
        url = f"http://127.0.0.1:{port or self.http_port}/ready"

        def asks() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.text()
            with contextlib.suppress(httpx.HTTPError):
                return httpx.get(url, timeout=2).status_code == 200
            return False

        until(asks, seconds, f"{url} ready")
        return self

    def stop(self, sign: signal.Signals = signal.SIGTERM, seconds: float = 60.0) -> int:
        assert self.process is not None
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.send_signal(sign)
        return self.process.wait(seconds)

    def kill(self) -> None:
        assert self.process is not None
        for client in self.clients:
            client.close()
        self.process.kill()
        self.process.wait(10)

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def runtime(self) -> Runtime:
        return msgspec.json.decode((self.folder / "runtime.json").read_bytes(), type=Runtime)

    def command(self, *arguments: str, input_: str = "") -> subprocess.CompletedProcess[str]:
        """Run another command of the program on the same data folder."""
        return subprocess.run(
            [sys.executable, "-m", "iotistica", *arguments],
            env=self.environment,
            input=input_,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def add_tenant(self, name: str, id_: str | None = None) -> str:
        done = self.command("tenants", "add", name, *(("--id", id_) if id_ else ()))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def add_agent(self, tenant: str, uuid: str | None = None) -> dict[str, str]:
        """What `agents add` prints: uuid, host, username, password, topic."""
        done = self.command("agents", "add", "--tenant", tenant, *(("--uuid", uuid) if uuid else ()))
        assert done.returncode == 0, done.stderr
        return dict(line.split(maxsplit=1) for line in done.stdout.partition("\n\n")[0].splitlines())

    def login(self, tenant: str | None = None, role: str = "viewer") -> httpx.Client:
        """A client logged in with a role in that tenant, or as the first owner."""
        email, password = ADMIN
        if tenant is not None:
            email, password = f"{role}-{tenant}@example.com", "a-password-in-tests"
            self.command("users", "add", email, "--tenant", tenant, "--password", password, "--role", role)
        base = f"http://127.0.0.1:{self.http_port}"
        answer = httpx.post(f"{base}/api/v1/auth/login", json={"email": email, "password": password})
        assert answer.status_code == 200, answer.text
        token = answer.json()["accessToken"]
        headers = {"Authorization": f"Bearer {token}"}
        self.clients.append(httpx.Client(base_url=f"{base}/api/v1", headers=headers, timeout=30))
        return self.clients[-1]


@contextlib.contextmanager
def served(*arguments: str, **environment: str) -> Iterator[Served]:
    """A running instance on a new data folder."""
    with new_data_folder() as folder:
        server = Served(folder, **environment).start(*arguments)
        try:
            yield server.ready()
        finally:
            server.stop()
