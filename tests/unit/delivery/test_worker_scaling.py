"""How many consumers there are, and whose fault it is when messages cannot be stored."""

from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.delivery.fault_attribution import FAILURES, Verdicts
from iotistica.domain.delivery.worker_scaling import COOLDOWN, EVERY, PROFILES, Profile, Scale, Signals, scaled

CALM = Signals(lag=0.0, saturation=0.0, depth=0.0, memory=0.0)
LATE = Signals(lag=60.0, saturation=0.1, depth=0.0, memory=0.0)
PROFILE = PROFILES["balanced"]


def looks(scale: Scale, signals: Signals, times: int, profile: Profile = PROFILE, start: float = 0.0) -> Scale:
    for number in range(times):
        scale = scaled(scale, signals, profile, now=start + number * EVERY)
    return scale


def test_lag_brings_one_more_after_each_cooldown_up_to_the_most() -> None:
    """Never two at once, and never beyond the profile."""
    scale = Scale(workers=PROFILE.least)
    scale = scaled(scale, LATE, PROFILE, now=0.0)
    assert scale.workers == PROFILE.least + 1
    assert scaled(scale, LATE, PROFILE, now=COOLDOWN - 0.1).workers == PROFILE.least + 1
    assert looks(scale, LATE, 50, start=COOLDOWN).workers == PROFILE.most


def test_a_deep_stream_and_full_memory_count_as_lag_does() -> None:
    """Any of the three is a reason for one more."""
    for signals in (
        Signals(lag=0.0, saturation=0.0, depth=0.9, memory=0.0),
        Signals(lag=0.0, saturation=0.0, depth=0.0, memory=0.9),
    ):
        assert scaled(Scale(workers=2), signals, PROFILE, now=0.0).workers == 3


def test_a_saturated_database_gets_no_more() -> None:
    """One more would only wait for a connection."""
    busy = Signals(lag=60.0, saturation=0.9, depth=0.9, memory=0.9)
    assert looks(Scale(workers=2), busy, 20).workers == 2


def test_calm_takes_one_away_after_so_many_looks_down_to_the_least() -> None:
    """One look that is not calm starts the count again."""
    scale = looks(Scale(workers=4), CALM, PROFILE.calm_looks - 1)
    assert scale.workers == 4
    in_between = Signals(lag=PROFILE.late / 2, saturation=0.0, depth=0.0, memory=0.0)
    scale = scaled(scale, in_between, PROFILE, now=100.0)
    assert looks(scale, CALM, PROFILE.calm_looks - 1, start=105.0).workers == 4
    assert looks(scale, CALM, 200, start=105.0).workers == PROFILE.least


shares = st.floats(0, 1)


@given(
    st.lists(
        st.builds(Signals, lag=st.floats(0, 100), saturation=shares, depth=shares, memory=shares), max_size=60
    ),
    st.sampled_from(list(PROFILES.values())),
)
def test_it_stays_within_its_bounds(seen: list[Signals], profile: Profile) -> None:
    """Whatever is seen, one step at a time between the least and the most."""
    scale = Scale(workers=profile.least)
    for number, signals in enumerate(seen):
        after = scaled(scale, signals, profile, now=number * EVERY)
        assert abs(after.workers - scale.workers) <= 1
        assert profile.least <= after.workers <= profile.most
        scale = after


def test_bad_senders_never_stop_the_others() -> None:
    """However much they send that cannot be stored, as long as somebody else's messages are stored."""
    good, bad, worse, verdicts = uuid4(), uuid4(), uuid4(), Verdicts()
    verdicts.add(10, [good], {}, {})
    for _ in range(40):
        assert not verdicts.are_hopeless(0, {bad: 10}, {worse: 10})
        verdicts.add(0, [], {bad: 10}, {worse: 10})


def test_when_everybody_is_refused_it_stops() -> None:
    """So many in a row, of all who send: then it is not the messages."""
    one, two, verdicts = uuid4(), uuid4(), Verdicts()
    verdicts.add(100, [one, two], {}, {})
    assert not verdicts.are_hopeless(0, {one: FAILURES - 2, two: 1}, {})
    assert verdicts.are_hopeless(0, {one: FAILURES - 1, two: 1}, {})
    assert Verdicts().are_hopeless(0, {one: FAILURES}, {})


def test_a_fault_while_decoding_stops_only_when_it_strikes_several() -> None:
    """One sender may have found a payload that brings it about; all of them have not."""
    one, two = uuid4(), uuid4()
    assert not Verdicts().are_hopeless(0, {}, {one: FAILURES * 10})
    assert Verdicts().are_hopeless(0, {}, {one: FAILURES, two: 1})


def test_a_batch_that_is_mostly_stored_starts_the_count_again() -> None:
    """Single bad messages among good ones are put aside for as long as they come; an empty batch says nothing."""
    one, two, verdicts = uuid4(), uuid4(), Verdicts()
    for _ in range(FAILURES):
        assert not verdicts.are_hopeless(5, {one: 3}, {two: 2})
        verdicts.add(5, [one, two], {one: 3}, {two: 2})
    verdicts.add(0, [], {one: FAILURES - 1, two: 1}, {})
    verdicts.add(0, [], {}, {})
    assert verdicts.are_hopeless(0, {one: 1}, {})
