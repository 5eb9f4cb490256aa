"""Reads the settings, once: from the environment and a TOML file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from iotistica.errors import CannotStart
from iotistica.setting_errors import explain, hint
from iotistica.settings import PREFIX, SECRET, URLS, Settings

FIELDS: Final = frozenset(Settings.__struct_fields__)


def load(environ: Mapping[str, str]) -> Settings:
    """Read the variables `IOTISTICA_*`, which override the TOML file named by `IOTISTICA_CONFIG`.

    Raises `CannotStart` for an invalid value and for an unknown name in the file, but not for unknown variables.
    """
    values: dict[str, Any] = {}
    if path := environ.get(PREFIX + "CONFIG"):
        try:
            values.update(tomllib.loads(Path(path).read_text()))
        except (OSError, tomllib.TOMLDecodeError) as exc:
            raise CannotStart(f"Cannot read the configuration file {path}: {exc}.") from exc
    for name in values:
        if name not in FIELDS:
            raise CannotStart(f"{name} in {path} is not a setting. {hint(name, FIELDS)}")
    for name, value in environ.items():
        field = name.removeprefix(PREFIX).lower()
        if name.startswith(PREFIX) and field in FIELDS and value != "":
            values[field] = value
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as exc:
        what, _, field = str(exc).partition(" - at `$.")
        field = field.rstrip("`")
        kind = next(f.type for f in msgspec.structs.fields(Settings) if f.name == field)
        invalid = None if field in SECRET | URLS else values[field]
        raise CannotStart(f"{PREFIX}{field.upper()} {explain(what, kind, invalid)}") from exc
    hours, raw = settings.hours_days, settings.retention_days
    if hours < raw:  # a late reading needs the rollups of its whole day
        raise CannotStart(f"IOTISTICA_HOURS_DAYS must be at least {raw}, IOTISTICA_RETENTION_DAYS; it is {hours}")
    return settings
