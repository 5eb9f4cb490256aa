"""The config of a target in the form in which the real agent reports it."""

import json
from typing import Any


def as_reported(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config with its endpoints as the agent writes them: `id`, and the connection as JSON text."""
    if not isinstance(config.get("endpoints"), list):
        return config
    return config | {"endpoints": [_endpoint(endpoint) for endpoint in config["endpoints"]]}


def _endpoint(endpoint: dict[str, Any]) -> dict[str, Any]:
    points = endpoint.get("dataPoints") or endpoint.get("data_points") or endpoint.get("registers") or []
    return {
        "id": endpoint.get("uuid"),
        "name": endpoint.get("name"),
        "protocol": endpoint.get("protocol"),
        "connectionString": json.dumps(endpoint.get("connection") or {}),
        "pollInterval": endpoint.get("pollInterval", endpoint.get("poll_interval")),
        "enabled": endpoint.get("enabled", True),
        "metadata": endpoint.get("metadata"),
        "dataPoints": points,
    }
