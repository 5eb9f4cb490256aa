"""The embedded Mosquitto, with every agent confined to its own topics."""

import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import msgspec

from iotistica.domain.agents.broker_passwords import SERVICE_USER, WATCH_USER
from iotistica.embedded import data_folder as homes
from iotistica.embedded import debian_packages
from iotistica.embedded.child_process import ChildProcess, accepts
from iotistica.embedded.data_folder import DataFolder
from iotistica.errors import CannotStart

PROBE_USERS: Final = ("iotistica-probe", "probe000/p/one", "probe000/p/two")
"""Accounts of the access probe: one that sees all topics of the probe, and two that are confined like agents."""
OWN_USERS: Final = (SERVICE_USER, WATCH_USER, *PROBE_USERS)
"""The platform's own accounts."""

# Constant pattern lines instead of one block for each agent: only the password file changes, and 50,000 agents
# reload in a second. Blocks, after the last line, are only for the few broker users that tenants create. The user
# name is the client id, so no client can take over the session of another.
ACL: Final = f"""\
user {SERVICE_USER}
topic read $SYS/#

user {WATCH_USER}
topic read $SYS/#
topic read +/a/+/#

user {PROBE_USERS[0]}
topic readwrite i/probe000/#

pattern readwrite %u/#
pattern read i/%u/#
pattern write i/%u/#
# users of the tenants' own
"""
CONFIGURATION: Final = """\
per_listener_settings false
listener {port} {listen}
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl
use_username_as_clientid true
persistence true
persistence_location {folder}/
autosave_interval 10
persistent_client_expiration 14d
max_queued_messages 0
max_queued_bytes {queue}
max_inflight_messages 2000
max_packet_size 2162688
set_tcp_nodelay true
connection_messages true
log_dest stderr
log_dest topic
log_type error
log_type warning
log_type notice
"""


class BrokerFiles(msgspec.Struct, frozen=True):
    """The files that the broker reads again after a SIGHUP."""

    passwords: Path
    acl: Path


def prepare(
    home: DataFolder, *, listen: str, port: int, local: str, queue: int
) -> tuple[ChildProcess, BrokerFiles]:
    """Return the broker's process, not yet started, and its account files.

    The broker queues up to `queue` bytes for an offline client; `local` is its address for this process.
    """
    _check_free(listen, port)
    folder = home.folder("mosquitto")
    settings = CONFIGURATION.format(listen=listen, port=port, folder=folder, queue=queue)
    home.write(folder / "mosquitto.conf", settings)
    acl = folder / "acl"
    blocks = acl.read_text().partition(ACL.splitlines()[-1] + "\n")[2] if acl.exists() else ""
    home.write(acl, ACL + blocks)  # the tenants' users of the last run, until the database can be queried
    program, libraries = _program(home)
    child = ChildProcess(
        "mosquitto",
        [str(program), "-c", str(folder / "mosquitto.conf")],
        home=home,
        is_ready=lambda: accepts(local, port),
        stop_signal=signal.SIGTERM,
        death_signal=signal.SIGTERM,
        environment={"LD_LIBRARY_PATH": libraries} if libraries else None,
    )
    return child, BrokerFiles(folder / "passwords", acl)


def _program(home: DataFolder) -> tuple[Path, str]:
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    if found := shutil.which("mosquitto", path=path):
        return Path(found), ""
    program = debian_packages.unpack(_beside_the_environment(home))
    root = program.parents[2]
    reachable = homes.within_reach(home, root, "mosquitto")
    return reachable / program.relative_to(root), debian_packages.library_path(reachable)


def _beside_the_environment(home: DataFolder) -> Path:
    """Return where to unpack the program: in the virtual environment if writable, else in the servers' folder."""
    if sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK):
        return Path(sys.prefix) / "mosquitto"
    return home.servers / "mosquitto-program"


def _check_free(listen: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen, port))
        except OSError as exc:
            raise CannotStart(
                f"MQTT cannot listen on {listen}:{port} ({exc.strerror}). Set IOTISTICA_MQTT_PORT to another port."
            ) from exc
