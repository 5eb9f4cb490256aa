"""Tests of an agent's effective target: its own layer on top of its fleet's."""

from typing import Any

import pytest

from iotistica.domain.control import targets
from iotistica.domain.control.targets import Target, effective_target, validate_target
from iotistica.domain.documents import SEALED
from iotistica.errors import Invalid

PLC = {"name": "plc", "protocol": "modbus", "enabled": False, "connection": {"host": "h"}}


def told(fleet: dict[str, Any], own: dict[str, Any]) -> Target:
    return effective_target(
        validate_target(fleet.get("apps", {}), fleet.get("config", {})),
        validate_target(own.get("apps", {}), own["config"]),
    )


def test_what_an_override_does_not_say_stays_the_fleets() -> None:
    """An override of one setting leaves the fleet's other settings of the endpoint and the app unchanged."""
    app = {"appName": "web", "services": [{"imageName": "nginx"}]}
    fleet = {"apps": {"1": app}, "config": {"endpoints": [PLC]}}
    own = {
        "apps": {"1": {"note": "x"}},
        "config": {"endpoints": [{"name": "plc", "protocol": "modbus", "pollInterval": 50}]},
    }
    whole = told(fleet, own)
    (endpoint,) = whole.config["endpoints"]
    assert (endpoint["enabled"], endpoint["pollInterval"], endpoint["connection"]) == (False, 50, {"host": "h"})
    assert whole.apps["1"]["appName"] == "web"
    (service,) = whole.apps["1"]["services"]
    assert (service["imageName"], service["appId"], service["appName"]) == ("nginx", 1, "web")


def test_what_is_left_out_everywhere_is_filled_in() -> None:
    """Endpoints and apps of the effective target have all required settings."""
    whole = told({}, {"apps": {"web": {}}, "config": {"endpoints": [{"name": "a", "protocol": "opcua"}]}})
    (endpoint,) = whole.config["endpoints"]
    assert (endpoint["enabled"], endpoint["connection"]) == (True, {})
    assert whole.apps == {"web": {"appId": "web", "appName": "web", "services": []}}


@pytest.mark.parametrize("path", ["protocols", "settings"])
def test_endpoints_are_joined_only_where_they_stand(path: str) -> None:
    """A list named `endpoints` elsewhere in the config is replaced like any other list."""
    whole = told(
        {"config": {path: {"mqtt": {"endpoints": ["a"]}}}}, {"config": {path: {"mqtt": {"endpoints": ["b"]}}}}
    )
    assert whole.config == {path: {"mqtt": {"endpoints": ["b"]}}}


def test_what_is_sealed_is_never_joined() -> None:
    """An object replaces a sealed secret, and the other way round."""
    assert targets.merge_objects({"a": {SEALED: "x"}}, {"a": {"b": 1}}) == {"a": {"b": 1}}
    assert targets.merge_objects({"a": {"b": 1}}, {"a": {SEALED: "x"}}) == {"a": {SEALED: "x"}}


def test_a_target_of_too_many_values_is_refused() -> None:
    """A target with too many values is rejected before its values are checked one by one."""
    with pytest.raises(Invalid, match="values"):
        validate_target({}, {"settings": {"a": [[] for _ in range(60_000)]}})
