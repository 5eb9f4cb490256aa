"""What `serve` says at its start."""

import pytest

from iotistica.cli import first_start
from iotistica.setting_sources import load
from iotistica.settings import Settings

GROUPS = ("http", "mqtt", "ingest", "background")


def welcome(**settings: str) -> str:
    environ = {f"IOTISTICA_{name.upper()}": value for name, value in settings.items()}
    return first_start.welcome(load(environ), GROUPS, None, with_demo=False)


def test_a_start_says_where_it_is_and_what_comes_next() -> None:
    """The URL, the address of the broker and the command for the first agent."""
    text = first_start.welcome(
        Settings(), GROUPS, first_start.FirstOwner("a-new-password", "iotln_token"), with_demo=False
    )
    for part in ("http://127.0.0.1:3002", "mqtt://127.0.0.1:1883", "agents add NAME", "a-new-password"):
        assert part in text
    assert "IOTISTICA_PUBLIC_HOST" not in text
    assert first_start.welcome(Settings(), ("ingest",), None, with_demo=False) == ""


@pytest.mark.parametrize("listen", ["0.0.0.0", "::"])
def test_who_listens_to_all_without_a_public_host_is_told(listen: str) -> None:
    """Agents would be sent to an address of this machine only; one that others can reach is proposed."""
    assert "Set IOTISTICA_PUBLIC_HOST" in welcome(listen=listen)
    assert "Set IOTISTICA_PUBLIC_HOST" in welcome(listen=listen, agents_mqtt_url="mqtts://plant.local:8883")
    assert "Set IOTISTICA_PUBLIC_HOST" not in welcome(listen=listen, public_host="plant.local")
    both = {"agents_mqtt_url": "mqtts://plant.local:8883", "site_url": "https://plant.local"}
    assert "Set IOTISTICA_PUBLIC_HOST" not in welcome(listen=listen, **both)
    assert "Set IOTISTICA_PUBLIC_HOST" not in welcome(listen="192.0.2.7")
    assert "mqtt://192.0.2.7:1883" in welcome(listen="192.0.2.7")
