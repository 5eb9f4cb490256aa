"""The command that shows the settings."""

import click

from iotistica import setting_descriptions
from iotistica.settings import Settings


@click.command()
@click.option("--markdown", is_flag=True, help="Print the page docs/configuration.md instead.")
@click.pass_obj
def config(settings: Settings, markdown: bool) -> None:
    """Show every setting with its meaning and value."""
    if markdown:
        click.echo(setting_descriptions.page(), nl=False)
        return
    for name, value, meaning in setting_descriptions.describe(settings):
        click.echo(f"# {meaning}\n{name}={value}\n")
