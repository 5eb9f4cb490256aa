"""Reports merged into states: the order in which they come does not matter, nor that some come twice."""

import json
import zlib
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.agents import reported_state
from iotistica.domain.agents.reported_state import EMPTY, Report, ReportedState, merge
from iotistica.errors import InvalidMessage

AGENT = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
KEYS = ("apps", "config", "devices", "cpu_usage", "os_version")

VALUES = st.dictionaries(st.sampled_from(KEYS), st.integers(0, 5), max_size=4)


def live(values: dict[str, Any], received: int) -> Report:
    return Report(values={"version": 1, **values}, received=received, is_live=True)


def replay(values: dict[str, Any], received: int) -> Report:
    return Report(values=values, received=received, is_live=False)


def after(reports: list[Report]) -> ReportedState:
    state = EMPTY
    for report in reports:
        state = merge(state, report)
    return state


@given(st.lists(VALUES, max_size=8), st.lists(VALUES, max_size=8), st.data())
def test_where_live_reports_speak_the_state_is_theirs_alone(
    live_values: list[dict[str, Any]], replayed: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Any interleaving of live reports with replays and with what is delivered again, in any order."""
    lives = [live(values, received) for received, values in enumerate(live_values, 1)]
    again = data.draw(st.lists(st.sampled_from(lives), max_size=5)) if lives else []
    replays = [replay(values, 100 + n) for n, values in enumerate(replayed)]
    mixed = data.draw(st.permutations([*lives, *again, *replays]))
    wanted, found = after(lives).values, after(list(mixed)).values
    assert {key: found[key] for key in wanted} == wanted
    assert set(found) == set(wanted) | {key for values in replayed for key in values}


@given(st.lists(VALUES, max_size=8), st.integers(0, 7), st.data())
def test_what_a_broker_delivers_again_ends_where_it_ended_before(
    values: list[dict[str, Any]], tail: int, data: st.DataObject
) -> None:
    """A broker that lost our acknowledgements sends all that followed the last one again, in order."""
    first = [live(one, received) for received, one in enumerate(values, 1)]
    again = [live(one, 50 + received) for received, one in enumerate(values[tail:], 1)]
    assert after([*first, *again]).values == after(first).values


def test_an_absent_key_stays_and_a_replay_clears_nothing() -> None:
    """A report says what is new; a replay is older than what is known, whenever it comes."""
    state = after([live({"apps": {"1": "up"}, "config": {"a": 1}}, 10), live({"apps": {}}, 20)])
    assert state.values == {"version": 1, "apps": {}, "config": {"a": 1}}
    state = merge(state, replay({"apps": None, "config": {}, "uptime": 5}, 30))
    assert state.values == {"version": 1, "apps": {}, "config": {"a": 1}, "uptime": 5}


def test_a_version_that_falls_is_as_good_as_one_that_rises() -> None:
    """An agent counts from 1 after each boot, until its first poll."""
    assert after([live({"version": 9}, 1), live({"version": 1}, 2)]).values["version"] == 1


@pytest.mark.parametrize(
    "payload",
    [
        {str(AGENT): {"apps": {}, "version": 3}, "msgId": "1"},
        {str(AGENT).upper(): {"apps": {}, "version": 3}},
        {"apps": {}, "version": 3, "msgId": "2"},
        json.dumps({str(AGENT): {"apps": {}, "version": 3}}),
    ],
)
def test_every_shape_of_a_report_is_understood(payload: Any) -> None:
    """Wrapped, unwrapped, and as a text of JSON; plain or deflated."""
    for encoded in (json.dumps(payload).encode(), zlib.compress(json.dumps(payload).encode())):
        report = reported_state.parse_report(encoded, AGENT, 7)
        assert (report.values, report.is_live, report.received) == ({"apps": {}, "version": 3}, True, 7)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({str(uuid4()): {"apps": {}, "version": 1}}, "foreign_agent"),
        ({str(AGENT): {"apps": {}}, str(uuid4()): {"apps": {}}}, "foreign_agent"),
        ({str(AGENT): []}, "unknown_shape"),
        ({str(AGENT): {f"k{n}": n for n in range(101)}}, "unknown_shape"),
        ({"hello": 1}, "unknown_shape"),
        ([1], "unknown_shape"),
        ("{", "bad_json"),
        ({str(AGENT): {"apps": "x" * 1_100_000}}, "too_large"),
        ({str(AGENT): {"apps": [[]] * 60_000}}, "too_large"),
        ({str(AGENT): {"config": {"connectionString": "[" + "0," * 150_000 + "0]"}}}, "too_large"),
    ],
)
def test_what_is_no_report_of_this_agent_is_refused(payload: Any, reason: str) -> None:
    """Whole, with the reason."""
    with pytest.raises(InvalidMessage) as refused:
        reported_state.parse_report(zlib.compress(json.dumps(payload).encode()), AGENT, 0)
    assert refused.value.code == reason


def test_a_state_holds_a_bounded_number_of_keys() -> None:
    """An agent that makes up new names each time does not grow for ever."""
    state = after([live({f"a{n}": n for n in range(99)}, 1)])
    with pytest.raises(InvalidMessage, match="too_many_keys"):
        merge(state, live({"one more": 1}, 2))
    assert merge(state, live({"a1": "new"}, 3)).values["a1"] == "new"


def test_a_change_is_told_without_what_changes_all_the_time() -> None:
    """Measured values, times and counters of health are not news; an endpoint that fails is."""
    health = {"plc": {"status": "online", "lastPoll": "1", "errorCount": 0}}
    old = after([live({"cpu_usage": 1, "endpoints_health": health}, 1)])
    same = {"plc": {"status": "online", "lastPoll": "2", "errorCount": 1}}
    assert reported_state.changes(old, merge(old, live({"cpu_usage": 9, "endpoints_health": same}, 2))) == []
    down = {"plc": {"status": "offline", "lastPoll": "2", "errorCount": 2}}
    (change,) = reported_state.changes(old, merge(old, live({"endpoints_health": down}, 3)))
    assert (change.path, change.before, change.after) == ("endpoints_health.plc.status", "online", "offline")
