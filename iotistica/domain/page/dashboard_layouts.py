"""Layouts of dashboards: panels on a grid of twelve columns, and what their variables stand for at first."""

from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from iotistica.errors import Invalid

COLUMNS: Final = 12
PANELS_LIMIT: Final = 60
SHOWN_LIMIT: Final = 300
"""Series and agents of all panels together: each is read again and again for everyone who looks."""

Title = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f]*$")]
Metric = Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]


class Series(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A series of a panel; `$device` at the start of `metric` stands for the device that is chosen."""

    agent: UUID | None = None
    """Null for the agent that is chosen on the dashboard."""
    metric: Metric


OneSeries = Annotated[list[Series], Meta(min_length=1, max_length=1)]
SomeSeries = Annotated[list[Series], Meta(min_length=1, max_length=24)]
ManySeries = Annotated[list[Series], Meta(min_length=1, max_length=100)]


class Panel(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, tag_field="kind"
):
    """A part of a dashboard; `x`, `y`, `width` and `height` are in cells of the grid."""

    x: Annotated[int, Meta(ge=0, lt=COLUMNS)]
    y: Annotated[int, Meta(ge=0, le=1000)]
    width: Annotated[int, Meta(ge=1, le=COLUMNS)]
    height: Annotated[int, Meta(ge=1, le=40)]
    title: Title = ""


class ChartPanel(Panel, frozen=True, kw_only=True, tag="chart"):
    """Lines over the time of the dashboard."""

    series: SomeSeries
    compare: Literal["day", "week"] | None = None


class ValuePanel(Panel, frozen=True, kw_only=True, tag="value"):
    """The newest value in large digits, with the course of the last minutes."""

    series: OneSeries


class GaugePanel(Panel, frozen=True, kw_only=True, tag="gauge"):
    """The newest value on an arc from `low` to `high`."""

    series: OneSeries
    low: float = 0
    high: float = 100
    warning: float | None = None
    """The value from which on it is shown as a warning."""
    critical: float | None = None


class TablePanel(Panel, frozen=True, kw_only=True, tag="table"):
    """The newest values of several series, a row each."""

    series: ManySeries


class StatesPanel(Panel, frozen=True, kw_only=True, tag="states"):
    """A strip for each series that shows which value or text it had when, for what is on, off or in a mode."""

    series: SomeSeries


class AgentsPanel(Panel, frozen=True, kw_only=True, tag="agents"):
    """Whether agents are online, since when, and their worst open incidents."""

    agents: Annotated[list[UUID | None], Meta(min_length=1, max_length=100)]
    """Null for the agent that is chosen on the dashboard."""


class TextPanel(Panel, frozen=True, kw_only=True, tag="text"):
    """A text, shown as it was written, with its lines."""

    text: Annotated[str, Meta(max_length=5000, pattern=r"^[^\x00]*$")]


AnyPanel = ChartPanel | ValuePanel | GaugePanel | TablePanel | StatesPanel | AgentsPanel | TextPanel


class LayoutContent(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    range: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,3}[mhd]$")] = "1h"
    """The time up to now that is shown at first."""
    agent: UUID | None = None
    """The agent that is chosen at first, if panels leave it open."""
    device: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00]*$")] | None = None
    """The device that is chosen at first, if series leave it open."""
    panels: Annotated[list[AnyPanel], Meta(max_length=PANELS_LIMIT)] = msgspec.field(default_factory=list)


def check(content: LayoutContent) -> None:
    """Raise `Invalid` for a panel that leaves the grid or shows the same twice, or a gauge without a scale."""
    if sum(_shown(panel) for panel in content.panels) > SHOWN_LIMIT:
        raise Invalid(f"must show at most {SHOWN_LIMIT} series and agents in all panels together", "content.panels")
    for at, panel in enumerate(content.panels):
        if panel.x + panel.width > COLUMNS:
            raise Invalid(f"must be within {COLUMNS} columns: x + width is more", f"content.panels[{at}].width")
        if isinstance(panel, GaugePanel) and not panel.low < panel.high:
            raise Invalid("must be above `low`", f"content.panels[{at}].high")
        if isinstance(panel, GaugePanel) and _is_above(panel.warning, panel.critical):
            raise Invalid("must be above `warning`", f"content.panels[{at}].critical")
        if isinstance(panel, AgentsPanel) and len({*panel.agents}) < len(panel.agents):
            raise Invalid("must not contain an agent twice", f"content.panels[{at}].agents")
        if len({(one.agent, one.metric) for one in _series(panel)}) < len(_series(panel)):
            raise Invalid("must not contain a series twice", f"content.panels[{at}].series")


def _series(panel: AnyPanel) -> list[Series]:
    return [] if isinstance(panel, AgentsPanel | TextPanel) else panel.series


def _shown(panel: AnyPanel) -> int:
    return len(panel.agents) if isinstance(panel, AgentsPanel) else len(_series(panel))


def _is_above(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and low >= high
