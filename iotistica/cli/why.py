"""The command that says why an agent sends no data."""

from datetime import UTC, datetime
from uuid import UUID

import click

from iotistica.cli.arguments import TENANT, Text
from iotistica.cli.database import database_and_redis_urls, find_tenant, opened, run, server_key
from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.delivery import diagnosis
from iotistica.domain.delivery.evidence import Evidence, PastEvent
from iotistica.domain.ids import TenantId
from iotistica.errors import NotFound
from iotistica.settings import Settings
from iotistica.storage import redis as redis_
from iotistica.storage import schema
from iotistica.storage.agents import agent_search, refused_logins
from iotistica.storage.agents import agents as agents_
from iotistica.storage.agents.agent_search import AgentFilter, AgentSummary
from iotistica.storage.agents.refused_logins import RefusedLogins
from iotistica.storage.delivery import evidence
from iotistica.storage.postgres import Tx

ALIKE = 10  # agents that are listed if a name fits several
SEARCHED = 10_000  # agents whose names contain what was typed
REFUSALS = 5  # that are shown


@click.command("why")
@click.argument("name", type=Text(200))
@TENANT
@click.pass_obj
def why(settings: Settings, name: str, tenant: str) -> None:
    """Say why an agent sends no data, with the likeliest cause first.

    NAME is the agent's name, a part of it, or its UUID.
    """
    box = SecretBox(server_key(settings))

    async def work(database_url: str, redis_url: str) -> str:
        async with opened(database_url) as database:
            async with database.transaction() as tx:
                owner, agent = await _find(tx, name, tenant)
                rows = await evidence.load(tx, owner, agent)
            redis = redis_.client(redis_url)
            try:
                now = datetime.now(UTC)
                streams = await evidence.load_streams(redis, owner, agent, now)
                refused = await refused_logins.recent(redis, now)
            finally:
                await redis.aclose()
        found = evidence.evidence(rows, streams, box, now, refused_logins=refused.count if refused else 0)
        return _text(rows.agent, found, refused)

    with database_and_redis_urls(settings) as (database_url, redis_url):
        schema.migrate(database_url)
        click.echo(run(work(database_url, redis_url)))


async def _find(tx: Tx, name: str, tenant: str) -> tuple[TenantId, UUID]:
    """Return the agent with this UUID, of any tenant, or the only one of the tenant with this name."""
    try:
        uuid = UUID(name)
    except ValueError:
        uuid = None
    if uuid is not None and (owner := (await agents_.tenants_of(tx, [uuid])).get(uuid)):
        return owner, uuid
    owner = await find_tenant(tx, tenant)
    alike = await agent_search.page(tx, owner, AgentFilter(text=name), sort="name", limit=SEARCHED)
    exact = [agent for agent in alike if agent.name == name]
    found = exact or alike
    if len(found) == 1:
        return owner, found[0].agent_uuid
    if not found:
        raise NotFound(
            f"The tenant {tenant} has no agent {name!r}. `iotistica agents list` lists the agents of a tenant."
        )
    names = ", ".join(f"{agent.name} ({agent.agent_uuid})" for agent in found[:ALIKE])
    raise NotFound(f"Several agents fit {name!r}: {names}. Use the UUID of one of them.")


def _text(agent: AgentSummary, found: Evidence, refused: RefusedLogins | None) -> str:
    lines = [f"{agent.name}  {agent.agent_uuid}", ""]
    causes = diagnosis.causes(found)
    if found.is_sending:
        lines += [f"It sends data; the newest reading is of {_at(found.readings_at)}."]
    elif causes:
        lines += ["Likeliest cause first:"]
    lines += [""] if found.is_sending and causes else []
    for number, cause in enumerate(causes, 1):
        lines += [f"  {number}. {cause.text}", f"     {cause.advice}"]
    facts = [
        ("account", agent.state + ("" if agent.active else ", inactive")),
        ("presence", f"{agent.status or 'new'}{f' since {_at(agent.since)}' if agent.since else ''}"),
        ("last reading", _at(found.readings_at)),
        ("last poll", _at(found.polled_at)),
        ("last report", _at(found.reported_at)),
        *_broker(found),
        *_refusals(found),
        ("target", f"{found.target_verdict}: {found.target_reason}"),
    ]
    if refused and not found.is_connected:
        address = f", the latest from {refused.address}" if refused.address else ""
        facts += [("log-ins", f"{refused.count} refused, account unknown{address} at {_at(refused.at)}")]
    return "\n".join(map(_printable, [*lines, "", *(f"{word:14}{text}" for word, text in facts)]))


def _printable(line: str) -> str:
    """Return a line without control characters, which a terminal would obey: devices write topics and errors."""
    return "".join(character for character in line if character.isprintable())


def _broker(found: Evidence) -> list[tuple[str, str]]:
    came, left = found.connected, found.latest("broker.left")
    facts = []
    if came:
        facts += [("connected", f"{_at(came.at)}{_from(came)}")]
    else:
        facts += [("connected", "never")]
    if left and not found.is_connected:
        facts += [("left", f"{_at(left.at)}: {left.details.get('reason')}")]
    return facts


def _from(event: PastEvent) -> str:
    return f" from {event.details['address']}" if "address" in event.details else ""


def _refusals(found: Evidence) -> list[tuple[str, str]]:
    refused = [event for event in found.events if event.kind in ("message.refused", "readings.rejected")]
    newest = list({event.details.get("reason"): event for event in reversed(refused)}.values())[::-1][:REFUSALS]
    return [
        ("refused", f"{event.details.get('reason')}, {event.times} times, at {_at(event.at)}") for event in newest
    ]


def _at(when: datetime | None) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC" if when else "never"
