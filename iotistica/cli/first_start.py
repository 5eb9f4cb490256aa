"""The first owner, and what `serve` says when it is ready: where it is, who may log in, and what comes next."""

import contextlib
import secrets
import socket
import sys
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from iotistica.cli.database import opened
from iotistica.domain.access import credentials
from iotistica.errors import Conflict
from iotistica.settings import Settings
from iotistica.storage.access import one_time_links, tenants, users
from iotistica.storage.history.audit import PLATFORM


class FirstOwner(NamedTuple):
    """The first owner's generated password, None if it is a setting; and the token of a link that logs in once."""

    password: str | None
    token: str


async def create_owner(url: str, settings: Settings, key: bytes) -> FirstOwner | None:
    """Create the tenant `default` and its owner if they do not exist; return what the owner logs in with."""
    password = settings.admin_password or secrets.token_urlsafe(12)
    secret = credentials.new(key, credentials.LINK, secrets.token_bytes(credentials.ENTROPY))
    async with opened(url) as database:
        with contextlib.suppress(Conflict):  # another process can do the same at the same time
            async with database.transaction() as tx:
                tenant = await tenants.find(tx, "default") or await tenants.add(tx, "default", by=PLATFORM)
                if await users.any_of(tx, tenant.tenant_id) is not None:
                    return None
                digest = await users.hashed(password)
                owner = await users.add(tx, tenant.tenant_id, settings.admin_email, digest, "owner", by=PLATFORM)
                expires = datetime.now(UTC) + one_time_links.LOGIN_LIFETIME
                await one_time_links.add_login(tx, owner, secret.digest, expires=expires, by=PLATFORM)
            return FirstOwner(None if settings.admin_password else password, secret.text)
    return None


def welcome(settings: Settings, groups: Collection[str], owner: FirstOwner | None, *, with_demo: bool) -> str:
    """Return what to print at the start of these groups; `owner` is the first owner, if it was just created.

    The demo prints its own guide, which stands for the part about the next step.
    """
    lines = []
    if "http" in groups and not with_demo:
        link = settings.login_url(owner.token) if owner else settings.site
        lines += [f"Dashboard {link}" + ("  (logs in once, within a day)" if owner else "")]
        lines += [f"API       {settings.http_url}  (documentation: {settings.http_url}/schema)"]
    if owner and owner.password:
        lines += [f"Login     {settings.admin_email}  password: {owner.password}  (shown only now)"]
    if "http" in groups and not with_demo:
        lines += [
            f"Agents    {settings.agents_broker().url}",
            f"Next      {command()} agents add NAME  creates an agent and prints a command that sends a reading",
            f"          {command()} keys add         prints a key with which agents register themselves",
        ]
    if lines:
        lines = ["Iotistica serves until Ctrl-C.", "", *(f"  {line}" for line in lines)]
    if "http" in groups and settings.lacks_public_host:
        lines += [
            "",
            f"  Agents and users are told the address {settings.agents_host}, which other machines cannot reach.",
            f"  Set IOTISTICA_PUBLIC_HOST to this machine's name or address, for example {_own_address()}.",
        ]
    return "".join(f"  {line}".rstrip() + "\n" for line in ["", *lines, ""]) if lines else ""


def command() -> str:
    """Return how commands are called: `./run` in a checkout, else `iotistica`."""
    return "./run" if Path(sys.argv[0]).name == "__main__.py" else "iotistica"


def _own_address() -> str:
    """Return the address from which this machine reaches other networks, or else its host name."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only chooses the route
        address: str = probe.getsockname()[0]
        if not address.startswith("127."):
            return address
    return socket.gethostname()
