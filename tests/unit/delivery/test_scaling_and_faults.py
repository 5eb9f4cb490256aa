"""The number of consumers, and whether failed messages are the fault of senders or of the platform."""

from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.delivery.fault_attribution import FAILURES_LIMIT, FaultHistory
from iotistica.domain.delivery.worker_scaling import (
    CHECK_SECONDS,
    COOLDOWN_SECONDS,
    PROFILES,
    LoadSignals,
    Profile,
    ScaleState,
    next_scale,
)

CALM = LoadSignals(lag=0.0, saturation=0.0, depth=0.0, memory=0.0)
LATE = LoadSignals(lag=60.0, saturation=0.1, depth=0.0, memory=0.0)
PROFILE = PROFILES["balanced"]


def looks(
    scale: ScaleState, signals: LoadSignals, times: int, profile: Profile = PROFILE, start: float = 0.0
) -> ScaleState:
    for number in range(times):
        scale = next_scale(scale, signals, profile, now=start + number * CHECK_SECONDS)
    return scale


def test_lag_brings_one_more_after_each_cooldown_up_to_the_most() -> None:
    """Consumers are added one at a time, and never more than the profile allows."""
    scale = ScaleState(workers=PROFILE.least)
    scale = next_scale(scale, LATE, PROFILE, now=0.0)
    assert scale.workers == PROFILE.least + 1
    assert next_scale(scale, LATE, PROFILE, now=COOLDOWN_SECONDS - 0.1).workers == PROFILE.least + 1
    assert looks(scale, LATE, 50, start=COOLDOWN_SECONDS).workers == PROFILE.most


def test_a_deep_stream_and_full_memory_count_as_lag_does() -> None:
    """A deep stream, or full memory, adds a consumer just as lag does."""
    for signals in (
        LoadSignals(lag=0.0, saturation=0.0, depth=0.9, memory=0.0),
        LoadSignals(lag=0.0, saturation=0.0, depth=0.0, memory=0.9),
    ):
        assert next_scale(ScaleState(workers=2), signals, PROFILE, now=0.0).workers == 3


def test_a_saturated_database_gets_no_more() -> None:
    """Another consumer would only wait for a connection."""
    busy = LoadSignals(lag=60.0, saturation=0.9, depth=0.9, memory=0.9)
    assert looks(ScaleState(workers=2), busy, 20).workers == 2


def test_calm_takes_one_away_after_so_many_looks_down_to_the_least() -> None:
    """A check that is not calm restarts the count of calm checks."""
    scale = looks(ScaleState(workers=4), CALM, PROFILE.calm_looks - 1)
    assert scale.workers == 4
    in_between = LoadSignals(lag=PROFILE.late / 2, saturation=0.0, depth=0.0, memory=0.0)
    scale = next_scale(scale, in_between, PROFILE, now=100.0)
    assert looks(scale, CALM, PROFILE.calm_looks - 1, start=105.0).workers == 4
    assert looks(scale, CALM, 200, start=105.0).workers == PROFILE.least


shares = st.floats(0, 1)


@given(
    st.lists(
        st.builds(LoadSignals, lag=st.floats(0, 100), saturation=shares, depth=shares, memory=shares), max_size=60
    ),
    st.sampled_from(list(PROFILES.values())),
)
def test_it_stays_within_its_bounds(loads: list[LoadSignals], profile: Profile) -> None:
    """For any load, the number changes by at most one at a time and stays within the profile."""
    scale = ScaleState(workers=profile.least)
    for number, signals in enumerate(loads):
        after = next_scale(scale, signals, profile, now=number * CHECK_SECONDS)
        assert abs(after.workers - scale.workers) <= 1
        assert profile.least <= after.workers <= profile.most
        scale = after


def test_bad_senders_never_stop_the_others() -> None:
    """Any number of failures of some senders is tolerated while another sender's messages are stored."""
    good, bad, worse, history = uuid4(), uuid4(), uuid4(), FaultHistory()
    history.record(10, [good], {}, {})
    for _ in range(40):
        assert not history.is_platform_fault(0, {bad: 10}, {worse: 10})
        history.record(0, [], {bad: 10}, {worse: 10})


def test_when_everybody_is_refused_it_stops() -> None:
    """When enough messages in a row of all senders are refused, the platform is at fault."""
    one, two, history = uuid4(), uuid4(), FaultHistory()
    history.record(100, [one, two], {}, {})
    assert not history.is_platform_fault(0, {one: FAILURES_LIMIT - 2, two: 1}, {})
    assert history.is_platform_fault(0, {one: FAILURES_LIMIT - 1, two: 1}, {})
    assert FaultHistory().is_platform_fault(0, {one: FAILURES_LIMIT}, {})


def test_a_fault_while_decoding_stops_only_when_it_strikes_several() -> None:
    """A single sender can send a payload that causes the fault; several senders point to the platform."""
    one, two = uuid4(), uuid4()
    assert not FaultHistory().is_platform_fault(0, {}, {one: FAILURES_LIMIT * 10})
    assert FaultHistory().is_platform_fault(0, {}, {one: FAILURES_LIMIT, two: 1})


def test_a_batch_that_is_mostly_stored_starts_the_count_again() -> None:
    """Bad messages among mostly good ones never blame the platform; an empty batch changes nothing."""
    one, two, history = uuid4(), uuid4(), FaultHistory()
    for _ in range(FAILURES_LIMIT):
        assert not history.is_platform_fault(5, {one: 3}, {two: 2})
        history.record(5, [one, two], {one: 3}, {two: 2})
    history.record(0, [], {one: FAILURES_LIMIT - 1, two: 1}, {})
    history.record(0, [], {}, {})
    assert history.is_platform_fault(0, {one: 1}, {})
