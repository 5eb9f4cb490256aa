"""Target states: validates them, merges an agent's target over its fleet's, and encodes answers to polls."""

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec

from iotistica.domain import documents
from iotistica.domain.access.document_secrets import has_seal
from iotistica.domain.documents import SEALED
from iotistica.errors import Invalid

SIZE: Final = 1 << 20  # bytes of JSON
APPS: Final = 100
SERVICES: Final = 100  # services of an app
ENDPOINTS: Final = 1000
POINTS: Final = 5000  # data points of an endpoint
NAME: Final = 200  # characters of a name
POLL_MS: Final = (10, 86_400_000)  # shortest and longest poll interval
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_PROTOCOL: Final = re.compile(r"[a-z0-9_-]{1,32}")
LEVELS: Final = ("debug", "info", "warn", "error")

Json = dict[str, Any]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The target of an agent or a fleet; null in an agent's target removes what its fleet's target has there."""

    apps: Json
    config: Json


EMPTY_TARGET: Final = Target(apps={}, config={})


def validate_target(apps: Any, config: Any) -> Target:
    """Return a target as it is stored: apps by id, endpoints with uuids; raises `Invalid` with the fault's path."""
    if not isinstance(config, dict):
        raise Invalid("must be an object", "config")
    if documents.is_large([apps, config]):
        raise Invalid(f"The target must have at most {documents.VALUES} values.")
    target = Target(apps=_apps(apps), config=_config(config))
    whole = msgspec.to_builtins(target)
    if has_seal(whole):
        raise Invalid(f"The target must not have a key {SEALED!r}.")
    if documents.clean(whole) != whole:
        limits = f"no numbers of more than 64 bits and at most {documents.DEEPEST} levels"
        raise Invalid(f"The target must have no NUL characters, {limits}.")
    if len(msgspec.json.encode(whole)) > SIZE:
        raise Invalid(f"The target must have at most {SIZE} bytes of JSON.")
    return target


def _apps(apps: Any) -> Json:
    """Check the apps; a list of apps becomes an object of apps by id."""
    if isinstance(apps, list):
        for number, app in enumerate(apps):
            if not isinstance(app, dict) or not isinstance(app.get("appId"), (int, str)):
                raise Invalid("must be an object with an appId", f"apps[{number}]")
        keyed = {str(app["appId"]): app for app in apps}
        if len(keyed) < len(apps):
            raise Invalid("must not have two apps with the same appId", "apps")
        apps = keyed
    if not isinstance(apps, dict):
        raise Invalid("must be an object of apps by id, or a list of apps", "apps")
    if len(apps) > APPS:
        raise Invalid(f"must have at most {APPS} apps", "apps")
    return {str(id_): app if app is None else validate_app(str(id_), app) for id_, app in apps.items()}


def validate_app(id_: str, app: Any) -> Json:
    """Return an app as it is stored; raises `Invalid` with the path of the fault."""
    path = f"apps.{id_[:NAME]}"
    if not _ID.fullmatch(id_):
        raise Invalid("must have an id of 1 to 100 letters, digits, dots, dashes and underscores", path)
    if not isinstance(app, dict):
        raise Invalid("must be an object", path)
    if str(app.get("appId", id_)) != id_:
        raise Invalid(f"must be {id_!r}, the key of the app; it is {app['appId']!r}", f"{path}.appId")
    whole: Json = {"appId": int(id_) if id_.isdecimal() and len(id_) < 16 else id_} | app
    if "appName" in whole:
        _check_text(whole["appName"], f"{path}.appName")
    if "services" in whole:
        services = whole["services"]
        if not isinstance(services, list) or len(services) > SERVICES:
            raise Invalid(f"must be a list of at most {SERVICES} services", f"{path}.services")
        whole["services"] = [_service(s, f"{path}.services[{n}]", n) for n, s in enumerate(services)]
        _check_unique(whole["services"], "serviceId", f"{path}.services")
    return whole


def _service(service: Any, path: str, number: int) -> Json:
    if not isinstance(service, dict):
        raise Invalid("must be an object", path)
    whole: Json = {"serviceId": number + 1} | service
    if not isinstance(whole["serviceId"], (int, str)) or isinstance(whole["serviceId"], bool):
        raise Invalid("must be a number or a string", f"{path}.serviceId")
    _check_text(whole.setdefault("serviceName", str(whole["serviceId"])), f"{path}.serviceName")
    config = whole.setdefault("config", {})
    if not isinstance(config, dict):
        raise Invalid("must be an object", f"{path}.config")
    image = whole.get("imageName") or config.get("image")
    if not isinstance(image, str) or not image.strip() or len(image) > NAME * 2:
        raise Invalid(f"must name the image of the service, in at most {NAME * 2} characters", f"{path}.imageName")
    whole["imageName"], whole["config"] = image, {"image": image} | config
    environment = config.get("environment", {})
    if not isinstance(environment, dict) or not all(
        isinstance(value, (str, int, float)) or value is None for value in environment.values()
    ):
        raise Invalid("must be an object of strings and numbers", f"{path}.config.environment")
    for name in ("ports", "volumes", "networks"):
        if not isinstance(config.get(name, []), list) or not all(isinstance(v, str) for v in config.get(name, [])):
            raise Invalid("must be a list of strings", f"{path}.config.{name}")
    return whole


def _config(config: Json) -> Json:
    whole = dict(config)
    if whole.get("endpoints") is not None:
        endpoints = whole["endpoints"]
        if not isinstance(endpoints, list) or len(endpoints) > ENDPOINTS:
            raise Invalid(f"must be a list of at most {ENDPOINTS} endpoints", "config.endpoints")
        whole["endpoints"] = [validate_endpoint(e, f"config.endpoints[{n}]") for n, e in enumerate(endpoints)]
        for key in ("name", "uuid"):
            _check_unique(whole["endpoints"], key, "config.endpoints")
    for section in ("logging", "features", "intervals", "runtime", "protocols", "settings", "agent"):
        if not isinstance(whole.get(section, {}), (dict, type(None))):
            raise Invalid("must be an object", f"config.{section}")
    level = (whole.get("logging") or {}).get("level")
    if level is not None and level not in LEVELS:
        raise Invalid(f"must be one of {', '.join(LEVELS)}", "config.logging.level")
    for name, value in (whole.get("features") or {}).items():
        if not isinstance(value, (bool, type(None))):
            raise Invalid("must be true or false", f"config.features.{name}")
    for path, value in _numbers(whole.get("intervals") or {}, "config.intervals"):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 100 <= value <= 30 * 86_400_000:
            raise Invalid("must be a number of milliseconds, from 100 to 2592000000 (30 days)", path)
    return whole


def _numbers(intervals: Json, path: str) -> Iterator[tuple[str, Any]]:
    for name, value in intervals.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{path}.{name}")
        elif value is not None:
            yield f"{path}.{name}", value


def validate_endpoint(endpoint: Any, path: str) -> Json:
    """Return an endpoint as it is stored; if it has no uuid, one is derived from its name. Raises `Invalid`."""
    if not isinstance(endpoint, dict):
        raise Invalid("must be an object", path)
    at = f"{path}." if path else ""
    _check_text(endpoint.get("name"), f"{at}name")
    whole: Json = {"uuid": str(uuid5(NAMESPACE_URL, f"endpoint:{endpoint['name']}"))} | endpoint
    try:
        whole["uuid"] = str(UUID(whole["uuid"]))
    except (ValueError, AttributeError, TypeError):
        raise Invalid("must be a UUID", f"{at}uuid") from None
    if not isinstance(whole.get("protocol"), str) or not _PROTOCOL.fullmatch(whole["protocol"]):
        raise Invalid("must be a lower-case word such as modbus, opcua, mqtt, bacnet or snmp", f"{at}protocol")
    if not isinstance(whole.get("enabled", True), bool):
        raise Invalid("must be true or false", f"{at}enabled")
    for name in ("pollInterval", "poll_interval"):
        interval = whole.get(name, POLL_MS[0])
        if isinstance(interval, bool) or not isinstance(interval, (int, float)):
            raise Invalid("must be a number of milliseconds", f"{at}{name}")
        if not POLL_MS[0] <= interval <= POLL_MS[1]:
            raise Invalid(f"must be from {POLL_MS[0]} to {POLL_MS[1]} milliseconds", f"{at}{name}")
    if not isinstance(whole.get("connection", {}), dict):
        raise Invalid("must be an object", f"{at}connection")
    for name in ("dataPoints", "data_points", "registers"):
        points = whole.get(name, [])
        if not isinstance(points, list) or len(points) > POINTS or not all(isinstance(p, dict) for p in points):
            raise Invalid(f"must be a list of at most {POINTS} objects", f"{at}{name}")
    return whole


def _check_text(value: Any, path: str) -> None:
    if not isinstance(value, str) or not value.strip() or len(value) > NAME:
        raise Invalid(f"must be a string of 1 to {NAME} characters", path)


def _check_unique(items: list[Json], key: str, path: str) -> None:
    seen: set[str] = set()
    for number, item in enumerate(items):
        if str(item[key]) in seen:
            raise Invalid("must be unique in the list", f"{path}[{number}].{key}")
        seen.add(str(item[key]))


def effective_target(fleet: Target, own: Target) -> Target:
    """Return the target that an agent gets: its fleet's target with its own merged over it.

    Objects are merged key by key, endpoints by uuid or else by name; other lists are replaced; null removes.
    """
    config, endpoints = merge_objects(fleet.config, own.config), own.config.get("endpoints")
    if isinstance(endpoints, list):
        endpoints = _endpoints(fleet.config.get("endpoints") or [], endpoints)
    else:
        endpoints = config.get("endpoints")
    if endpoints is not None:
        config["endpoints"] = [{"enabled": True, "connection": {}} | endpoint for endpoint in endpoints]
    apps = {id_: _whole_app(id_, app) for id_, app in merge_objects(fleet.apps, own.apps).items()}
    return Target(apps=apps, config=config)


def _whole_app(id_: str, app: Json) -> Json:
    """Return an app with defaults for the fields that neither the fleet's nor the agent's target sets."""
    whole: Json = {"appName": id_, "services": []} | app
    names = {"appId": whole["appId"], "appName": whole["appName"]}
    return whole | {"services": [names | service for service in whole["services"]]}


def merge_objects(base: Json, top: Json) -> Json:
    """Return `top` merged over `base`, key by key; null removes a key."""
    whole = {key: value for key, value in base.items() if value is not None}
    for key, value in top.items():
        below = whole.get(key)
        if value is None:
            whole.pop(key, None)
        elif isinstance(value, dict) and SEALED not in value:
            whole[key] = merge_objects(below if isinstance(below, dict) and SEALED not in below else {}, value)
        else:
            whole[key] = value
    return whole


def _endpoints(base: list[Json], top: list[Json]) -> list[Json]:
    by_uuid = {endpoint["uuid"]: endpoint for endpoint in base}
    by_name = {endpoint["name"]: endpoint["uuid"] for endpoint in base}
    for endpoint in top:
        uuid = endpoint["uuid"] if endpoint["uuid"] in by_uuid else by_name.get(endpoint["name"], endpoint["uuid"])
        by_uuid[uuid] = merge_objects(by_uuid.get(uuid, {}), endpoint)
    return list(by_uuid.values())


def poll_body(agent: UUID, target: Target, *, version: int, deployed_at: datetime | None) -> bytes:
    """Return the body of the answer to a poll, an object whose only key is the agent's uuid."""
    return msgspec.json.encode(
        {
            str(agent): {
                "apps": target.apps,
                "config": target.config,
                "version": version,
                "needs_deployment": False,
                "last_deployed_at": deployed_at,
            }
        }
    )


def etag(content: bytes, key: bytes) -> str:
    """Return the strong ETag of a body, in quotes; a keyed hash, since the body contains secrets."""
    return f'"{hmac.digest(key, content, hashlib.sha256).hex()[:32]}"'


def etag_matches(if_none_match: str, tag: str) -> bool:
    """Whether an If-None-Match header has the tag; it can be in a list, weak or without quotes, and `*` matches."""
    bare = tag.strip('"')
    for item in if_none_match.split(","):
        name = item.strip().removeprefix("W/").strip('"')
        if name in (bare, "*"):
            return True
    return False


def config_as_reported(config: Mapping[str, Any]) -> Json:
    """Return the config that an agent reports with the key names of a target.

    Agents report an endpoint's `uuid` as `id`, and its connection as `connectionString`, which is JSON text.
    """
    whole = dict(config)
    if isinstance(whole.get("endpoints"), list):
        whole["endpoints"] = [_echoed_endpoint(e) for e in whole["endpoints"] if isinstance(e, dict)]
    return whole


def _echoed_endpoint(endpoint: Json) -> Json:
    whole = dict(endpoint)
    if "id" in whole and "uuid" not in whole:
        whole["uuid"] = whole.pop("id")
    if isinstance(whole.get("connectionString"), str) and "connection" not in whole:
        try:
            whole["connection"] = msgspec.json.decode(whole["connectionString"])
        except msgspec.DecodeError:
            return whole
        del whole["connectionString"]
    return whole
