"""Describes all settings: for the command `config`, and for the page of the documentation."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Meta

from iotistica.setting_errors import hint
from iotistica.settings import PREFIX, SECRET, URLS, Settings

VARIABLES: Final = (*(field.upper() for field in Settings.__struct_fields__), "CONFIG", "USER_PASSWORD")


def describe(settings: Settings) -> list[tuple[str, str, str]]:
    """Return the variable, value (secrets masked) and meaning of every setting, in the order of the fields."""
    rows = []
    for field in msgspec.structs.fields(Settings):
        value = str(getattr(settings, field.name))
        if value and field.name in SECRET:
            value = "***"
        if value and field.name in URLS:
            value = mask(value)
        meta = getattr(field.type, "__metadata__", ())
        meaning = next((m.description for m in meta if isinstance(m, Meta) and m.description), "")
        rows.append((PREFIX + field.name.upper(), value, meaning))
    return rows


def mask(url: str) -> str:
    """Return the URL with its password masked."""
    head, at, tail = url.rpartition("@")
    scheme, sep, credentials = head.partition("://")
    user = credentials.partition(":")[0]
    return f"{scheme}{sep}{user}:***@{tail}" if at else url


def page() -> str:
    """Return the documentation page of the settings and their defaults, in Markdown."""
    rows = "".join(f"| `{n}` | {f'`{v}`' if v else ''} | {meaning} |\n" for n, v, meaning in describe(Settings()))
    return (
        "# Configuration\n\n`iotistica config --markdown` generates this page.\n\n"
        f"A setting is an environment variable, or a line of the TOML file that `{PREFIX}CONFIG` names, in lower\n"
        "case and without the prefix. `iotistica config` shows the values in use.\n\n"
        f"| variable | default | meaning |\n|---|---|---|\n{rows}"
    )


def unknown(environ: Mapping[str, str]) -> list[str]:
    """Return the variables with the prefix `IOTISTICA_` that are not settings, and so are probably misspelled."""
    known = {PREFIX + name for name in VARIABLES}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def unknown_message(name: str) -> str:
    """Say that a variable is not a setting, and suggest a setting with a similar name."""
    return f"{name} is not a setting. {hint(name.removeprefix(PREFIX), VARIABLES, PREFIX)}"
