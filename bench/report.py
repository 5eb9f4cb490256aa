"""The reports of the benches: a description of the machine, the commit, and the folder that keeps the results."""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the argument `--results`, which every bench has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--results", type=Path, default=FOLDER, help="folder for the report; default: bench/results"
    )
    return parser


def publish(name: str, folder: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures, with the machine and the commit, to `<folder>/<name>.json`, and print them as JSON."""
    text = json.dumps({"machine": _machine(), "commit": _commit(), **figures}, indent=2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(text + "\n")
    print(text)


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _commit() -> str:
    """Return the short hash of the checked out commit; empty outside a Git repository or without Git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
