"""The demo: a tenant `demo` with one user and 20 simulated agents that publish every second."""

import asyncio
import secrets
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from iotistica.domain.access import credentials
from iotistica.domain.ids import TenantId
from iotistica.domain.key_derivation import derive
from iotistica.errors import Conflict
from iotistica.settings import Settings
from iotistica.simulate import fleet
from iotistica.storage.access import one_time_links, users
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database
from iotistica.supervise import Group

TENANT: Final = "demo"
EMAIL: Final = "demo@localhost"
AGENTS: Final = 20
HURRY: Final = 6.0  # times as often as real agents poll and report, so that nobody waits a minute to see it

GUIDE: Final = """
  Demo: {agents} simulated agents publish every second. Like real agents, they also poll their target state, report
  what they run, send logs and run jobs.

    Dashboard {link}  (logs in once, within a day)
    Login     {email}  password: {password}
    API       {base}  (documentation: {base}/schema)

  Read the latest values of one agent:

    curl -s {base}/api/v1/readings/{agent}/latest -H "Authorization: Bearer $(curl -s {base}/api/v1/auth/login \
-H 'Content-Type: application/json' -d '{{"email":"{email}","password":"{password}"}}' \
| python3 -c 'import json,sys; print(json.load(sys.stdin)["accessToken"])')" | python3 -m json.tool

"""


async def prepare(database: Database, key: bytes, settings: Settings, url: str) -> Group:
    """Create the missing tenant, user and agents; return the group that prints the guide and runs the agents."""
    members = await fleet.create_agents(database, key, TENANT, AGENTS)
    await fleet.give_keys(database, key, members)
    password = derive(key, "demo").hex()[:16]
    with suppress(Conflict):
        async with database.transaction() as tx:
            await users.add(tx, members[0].tenant, EMAIL, await users.hashed(password), "owner", by=PLATFORM)
    guide = GUIDE.format(
        agents=AGENTS,
        base=settings.http_url,
        link=await _login_link(database, key, settings, members[0].tenant),
        email=EMAIL,
        password=password,
        agent=members[0].agent,
    )

    async def run(stop: asyncio.Event) -> None:
        sys.stdout.write(guide)
        sys.stdout.flush()
        plan = fleet.SimulationPlan(agents=AGENTS, hurry=HURRY)
        await fleet.run(plan, members, url, stop, api_url=settings.local_http_url)

    return run


async def _login_link(database: Database, key: bytes, settings: Settings, tenant: TenantId) -> str:
    """Return a link that logs the demo's user in; without the user, which somebody removed, the login page."""
    secret = credentials.new(key, credentials.LINK, secrets.token_bytes(credentials.ENTROPY))
    async with database.transaction() as tx:
        user = await users.by_email(tx, tenant, EMAIL)
        if user is None:
            return settings.site
        expires = datetime.now(UTC) + one_time_links.LOGIN_LIFETIME
        await one_time_links.add_login(tx, user, secret.digest, expires=expires, by=PLATFORM)
    return settings.login_url(secret.text)
