"""The demo: a tenant `demo` with one user and 20 simulated agents that publish every second."""

import asyncio
import sys
from contextlib import suppress
from typing import Final

from iotistica.domain.key_derivation import derive
from iotistica.errors import Conflict
from iotistica.settings import Settings
from iotistica.simulate import fleet
from iotistica.storage.access import users
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.postgres import Database
from iotistica.supervise import Group

TENANT: Final = "demo"
EMAIL: Final = "demo@localhost"
AGENTS: Final = 20

GUIDE: Final = """
  Demo: {agents} simulated agents publish every second. Like real agents, they also poll their target state, report
  what they run, send logs and run jobs.

    URL       {base}          (API documentation: {base}/schema)
    Login     {email}  password: {password}

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
        agents=AGENTS, base=settings.http_url, email=EMAIL, password=password, agent=members[0].agent
    )

    async def run(stop: asyncio.Event) -> None:
        sys.stdout.write(guide)
        sys.stdout.flush()
        plan = fleet.SimulationPlan(agents=AGENTS)
        await fleet.run(plan, members, url, stop, api_url=settings.local_http_url)

    return run
