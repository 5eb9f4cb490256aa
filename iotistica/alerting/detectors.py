"""The learned detectors of the watched series: loaded, taught from stored readings, and saved."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from iotistica.alerting.watch import Watch
from iotistica.alerting.watched import Holder, WatchedSeries
from iotistica.domain.alerts.detector import Verdict, observe
from iotistica.domain.alerts.detector_state import LAST_TIME, DetectorState
from iotistica.domain.alerts.rule_states import Samples
from iotistica.storage.alerts import detector_states, watched_readings
from iotistica.storage.postgres import Tx

HISTORY: Final = timedelta(days=28)  # of stored readings from which a new detector learns
HISTORY_READINGS: Final = 10_000  # readings of a series from which it learns at most, the newest
LEARNED_IN_A_ROUND: Final = 20_000  # readings from which new detectors learn in one round
READINGS_A_STATEMENT: Final = 20  # readings whose learning takes as long as a statement
SAVE_SECONDS: Final = 300.0  # seconds between saves; after a crash, what was not saved is learned again


class Detectors:
    """Judges readings by what each series was like before; a detector that has not learned yet says nothing."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._learning: list[tuple[Holder, WatchedSeries]] = []

    async def add(self, tx: Tx, added: Sequence[tuple[Holder, WatchedSeries]]) -> None:
        """Load the detectors of series that are watched from now on; they catch up in the next rounds."""
        new = [(holder, series) for holder, series in added if series.needs_detector and not series.has_learned]
        agents = sorted({holder.agent for holder, series in new if series.detector is None})
        stored = await detector_states.load(tx, list(self._watch.tenants), agents)
        for holder, series in new:
            if series.detector is None:
                series.detector = stored.get(holder.agent, {}).get(series.metric_name) or DetectorState()
        self._learning += new

    async def learn(self, tx: Tx) -> None:
        """Let detectors catch up with the readings that rules have judged already.

        Only some do in a round, so that nobody waits for rules while thousands of series are learned.
        """
        left, waiting = LEARNED_IN_A_ROUND, []
        for holder, series in self._learning:
            state = series.detector
            assert state is not None  # noqa: S101 set when it was added
            if left <= 0:
                waiting.append((holder, series))
                continue
            until = datetime.fromtimestamp(series.newest / 1e6, UTC)
            last = datetime.fromtimestamp(max(state.numbers[LAST_TIME], 0.0), UTC)
            samples = await watched_readings.history(
                *(tx, holder.subject.tenant, holder.agent, series.metric_name),
                after=max(last, until - HISTORY),
                until=until,
                limit=HISTORY_READINGS,
            )
            for at, value in zip(*samples, strict=True):
                observe(state, at / 1e6, value)
            left -= max(len(samples.times), READINGS_A_STATEMENT)
            series.has_learned = True
            self._watch.unsaved_detectors.add(holder.agent)
        self._learning = waiting

    def judge(self, holder: Holder, series: WatchedSeries, samples: Samples) -> Sequence[Verdict | None]:
        """Return what the detector of a series says of new readings, and let it learn from them."""
        if series.detector is None or not series.has_learned:
            return [None] * len(samples.times)
        self._watch.unsaved_detectors.add(holder.agent)
        state = series.detector
        return [observe(state, at / 1e6, value) for at, value in zip(*samples, strict=True)]

    async def save(self, tx: Tx, now: datetime, *, at_once: bool = False) -> bool:
        """Store what was learned, if it was not stored for `SAVE_SECONDS` or must be `at_once`; whether it was.

        What rules remember must be stored with it, or an unusual reading would be forgotten by a crash: a detector
        does not judge again what it has learned from.
        """
        watch = self._watch
        saved_at = watch.detectors_saved_at = watch.detectors_saved_at or now
        if not watch.unsaved_detectors or not (at_once or (now - saved_at).total_seconds() >= SAVE_SECONDS):
            return False
        holders = [watch.agents[agent] for agent in watch.unsaved_detectors if agent in watch.agents]
        await detector_states.save(
            tx,
            {
                (holder.subject.tenant, holder.agent): {
                    series.metric_name: series.detector
                    for series in holder.series.values()
                    if series.detector is not None and series.has_learned
                }
                for holder in holders
            },
        )
        watch.unsaved_detectors, watch.detectors_saved_at = set(), now
        return True
