"""The command that runs simulated agents."""

import asyncio
import signal
from datetime import datetime
from typing import Any

import click

from iotistica.cli.database import database_url, opened, run, server_key
from iotistica.embedded import data_folder
from iotistica.errors import CannotStart
from iotistica.settings import Settings


@click.command()
@click.option(
    "--agents", "count", default=20, show_default=True, type=click.IntRange(1, 10_000), help="Number of agents."
)
@click.option("--tenant", default="demo", show_default=True, help="Tenant of the agents; created if missing.")
@click.option("--every", default=1.0, show_default=True, type=click.FloatRange(0),
              help="Seconds between the messages of an agent.")  # fmt: skip
@click.option("--messages", default=0, type=click.IntRange(0),
              help="Messages of each agent, after which the command ends; 0 is no limit.")  # fmt: skip
@click.option(
    "--readings", default=10, show_default=True, type=click.IntRange(1, 1000), help="Readings in a message."
)
@click.option("--series", default=10, show_default=True, type=click.IntRange(1, 1000), help="Series of each agent.")
@click.option("--encoding", default="json", show_default=True,
              type=click.Choice(["json", "msgpack", "deflate", "both", "mix"]),
              help="Encoding of payloads: both is deflated MessagePack, mix is random.")  # fmt: skip
@click.option("--full", is_flag=True, help="Send readings of 1 kB, like the real agent.")
@click.option(
    "--duplicates", default=0.0, type=click.FloatRange(0, 1), help="Share of messages to send twice, 0 to 1."
)
@click.option("--bad", default=0.0, type=click.FloatRange(0, 1), help="Share of invalid readings, 0 to 1.")
@click.option("--skew", default=0.0, help="Seconds by which the agents' clocks are ahead.")
@click.option("--api-url", default="", help="URL of the API.  [default: that of the instance on this data folder]")
@click.option("--only-readings", is_flag=True, help="Do not poll, report, send logs or run jobs over HTTP.")
@click.option("--seed", default=1, show_default=True, help="Seed of the random values.")
@click.pass_obj
def simulate(
    settings: Settings,
    /,
    count: int,
    tenant: str,
    messages: int,
    seed: int,
    only_readings: bool,
    api_url: str,
    **options: Any,
) -> None:
    """Run simulated agents.

    They publish like real agents, to the instance on this data folder or to the broker of IOTISTICA_MQTT_URL, and
    poll their target, report, send logs and run jobs over HTTP. A line every 10 s says what they have done.
    """
    from iotistica.simulate import fleet

    plan = fleet.SimulationPlan(agents=count, messages=messages, seed=seed, **options)
    url, api = settings.mqtt_url, api_url
    if not url and (runtime := data_folder.runtime(settings.data_path)):
        url, api = runtime.mqtt_url, api_url or settings.local_http_url
    if not url:
        raise CannotStart(
            "No instance runs on this data folder. Start `iotistica serve`, or set IOTISTICA_MQTT_URL."
        )

    async def work(where: str) -> None:
        async with opened(where) as database:
            members = await fleet.create_agents(database, server_key(settings), tenant, plan.agents)
            if not only_readings:
                await fleet.give_keys(database, server_key(settings), members)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(sign, stop.set)
        say(f"{plan.agents} agents of the tenant {tenant} send {plan.readings} readings every {plan.every:g} s")
        report = await fleet.run(plan, members, url, stop, api_url="" if only_readings else api, tell=say)
        click.echo(report.text())

    with database_url(settings) as where:
        run(work(where))


def say(text: str) -> None:
    """Print a line about the progress, with the time, beside the report."""
    click.echo(f"{datetime.now():%H:%M:%S}  {text}", err=True)
