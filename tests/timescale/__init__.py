"""TimescaleDB for tests: a server that is named, or one in WebAssembly."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.databases import fresh
from tests.serving import free_port

FOLDER = Path(__file__).parent
VARIABLE = "IOTISTICA_TEST_TIMESCALE_URL"
MISSING = (
    f"TimescaleDB was NOT tested: name a server with {VARIABLE}, whose user may make databases,"
    " or install Node.js 20 with npm"
)


@contextlib.contextmanager
def databases() -> Iterator[str | None]:
    """The URL of an empty database of a server with TimescaleDB; None where neither can be had."""
    if server := os.environ.get(VARIABLE):
        with fresh(server) as url:
            yield url
    elif _installed():
        with _bridge() as url:
            yield url
    else:
        yield None


def _installed() -> bool:
    """Install the package once; False without Node.js, npm or its registry."""
    if (FOLDER / "node_modules" / "@unni-craftsman" / "pglite" / "package.json").exists():
        return True
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return False
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--silent"], cwd=FOLDER, capture_output=True, text=True, timeout=300
    )
    return done.returncode == 0


@contextlib.contextmanager
def _bridge() -> Iterator[str]:
    port = free_port()
    with subprocess.Popen(
        ["node", "bridge.mjs", str(port)], cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready"), line
        try:
            yield f"postgresql://postgres@127.0.0.1:{port}/template1"
        finally:
            assert process.stdin is not None
            process.stdin.close()  # it ends with its parent
            process.wait(20)
