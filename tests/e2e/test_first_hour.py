"""The first hour of a new user: what the start says, and commands in another shell than the server's."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.serving import Served, served

CA = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An instance behind a TLS proxy, whose commands run in a shell that knows only the data folder."""
    ca = tmp_path_factory.mktemp("tls") / "plant ca.pem"
    ca.write_text(CA)
    settings = {
        "IOTISTICA_PUBLIC_HOST": "plant.local",
        "IOTISTICA_AGENTS_MQTT_URL": "mqtts://plant.local:8883",
        "IOTISTICA_AGENTS_CA_FILE": str(ca),
        "IOTISTICA_KEY_GRACE_HOURS": "1",
        "IOTISTICA_ADMIN_PASSWORD": "",
    }
    with served(**settings) as running:
        kept = ("PATH", "IOTISTICA_DATA_DIR", "IOTISTICA_DATABASE_URL")
        running.environment = {name: running.environment[name] for name in kept if name in running.environment}
        yield running


def test_a_healthy_first_start_says_what_comes_next_and_warns_of_nothing(plant: Served) -> None:
    """The URL, the first owner and the next command; no line that looks like a fault."""
    log = plant.text()
    for part in (f"http://plant.local:{plant.http_port}", "owner@example.com  password: ", "agents add NAME"):
        assert part in log
    assert "WARNING" not in log
    assert "ERROR" not in log


def test_commands_tell_the_address_of_the_running_server(plant: Served) -> None:
    """Not the one that follows from the shell's own environment; with TLS, the command has the CA file."""
    added = plant.command("agents", "add", "pump")
    assert added.returncode == 0, added.stderr
    uuid = added.stdout.split()[1]
    for text in (added.stdout, plant.command("agents", "show", uuid).stdout):
        assert "broker    mqtts://plant.local:8883\n" in text
        assert "mosquitto_pub -h plant.local -p 8883 --cafile '" in text
        assert "plant ca.pem' -q 1" in text


def test_commands_apply_the_limits_of_the_running_server(plant: Served) -> None:
    """The hours of grace that the server was given hold for a rotation by command, too."""
    uuid = plant.command("agents", "add", "fan").stdout.split()[1]
    rotated = plant.command("agents", "rotate", uuid)
    assert rotated.returncode == 0, rotated.stderr
    shown = plant.command("config").stdout
    assert "IOTISTICA_KEY_GRACE_HOURS=168.0" in shown  # the shell's own
    until = datetime.strptime(rotated.stdout.rsplit("until ", 1)[1].strip(), "%Y-%m-%d %H:%M UTC.")
    assert until.replace(tzinfo=UTC) - datetime.now(UTC) < timedelta(hours=1, minutes=1)
