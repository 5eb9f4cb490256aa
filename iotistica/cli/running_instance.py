"""What a command takes from the instance that runs on the data folder, not from its own environment."""

from typing import Any, Final

import msgspec

from iotistica.embedded import data_folder
from iotistica.settings import SECRET, URLS, Settings

OWN: Final = SECRET | URLS | {"data_dir", "log_level", "log_format"}
"""Settings that a command keeps: its own output, and how it finds the instance."""


def settings_of_instance(settings: Settings) -> Settings:
    """Return the settings with those of the running instance; unchanged if no instance runs.

    A command that tells an address or applies a limit must mean the instance's, whatever the shell has set.
    """
    instance = data_folder.runtime(settings.data_path)
    if instance is None:
        return settings
    theirs: dict[str, Any] = {
        name: value
        for name, value in instance.settings.items()
        if name in Settings.__struct_fields__ and name not in OWN
    }
    return msgspec.structs.replace(settings, **theirs)
