"""Rollups equal the readings they summarise, even if readings arrive late, twice or during a roll-up."""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from iotistica.background import rollups as background
from iotistica.domain.ids import AgentId
from iotistica.domain.telemetry.rollup_sources import floor
from iotistica.domain.time_ranges import parse_interval
from iotistica.storage.access import tenants
from iotistica.storage.agents import agents
from iotistica.storage.history.audit import PLATFORM
from iotistica.storage.telemetry import rollups
from tests import databases
from tests.conftest import Stack
from tests.rollup_oracle import check_query, check_tables, reading, store

T = TypeVar("T")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
METRICS = ("a", "b")
QUALITIES = ("good", "uncertain", "bad", "stale", "unknown")
VALUES = st.one_of(
    st.none(),
    st.floats(-1e6, 1e6),
    st.sampled_from([0.0, 1e-200, 1e100, -1e300, 1.7e308, 5e-324]),
)


class RollupMachine(RuleBasedStateMachine):
    """Stores in any order, closes, rolls up, recomputes and is killed in between; compared with a dictionary."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.rows: dict[tuple[str, datetime], tuple[float | None, str]] = {}
        self.run(self.start(stack))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def start(self, stack: Stack) -> None:
        self.database = databases.worker_pool(stack.database_url, size=2)
        await self.database.open()
        self.agent = AgentId(uuid4())
        async with self.database.transaction() as tx:
            self.tenant = (await tenants.add(tx, f"r {uuid4()}", by=PLATFORM)).tenant_id
            await agents.add(tx, self.tenant, self.agent, "a", key=stack.key, by=PLATFORM)
            at = await rollups.progress(tx)
        # All machines share one clock that only moves forward: closed time never opens again.
        self.base = self.now = floor(at.closed_until, rollups.DAY) + timedelta(days=1)
        await self.settle()

    async def settle(self) -> None:
        await background.catch_up(self.database, self.now + background.BEHIND, rollups.DAY)

    @rule(
        what=st.lists(
            st.tuples(
                st.sampled_from(METRICS),
                st.sampled_from([-1500, -61, -60, -59, -2, 0, 1, 59, 60, 1439]),
                st.integers(0, 59_999_999),
                VALUES,
                st.sampled_from(QUALITIES[:3]),
            ),
            min_size=1,
            max_size=8,
        )
    )
    def store_some(self, what: list[tuple[str, int, int, float | None, str]]) -> None:
        """Store readings around the current time; those before the watermark are late."""
        rows = []
        for metric, minutes, offset, value, quality in what:
            when = self.now + timedelta(minutes=minutes, microseconds=offset)
            rows.append(reading(metric, when, value, quality))
            self.rows.setdefault((metric, when), (value, quality))
        self.run(store(self.database, self.tenant, self.agent, rows))

    @rule(values=st.lists(VALUES, min_size=1, max_size=3))
    def send_again(self, values: list[float | None]) -> None:
        """Store existing keys again: each is a duplicate, even with another value."""
        known = list(self.rows)[: len(values)]
        rows = [reading(metric, when, value) for (metric, when), value in zip(known, values, strict=False)]
        if rows:
            self.run(store(self.database, self.tenant, self.agent, rows))

    @rule(minutes=st.sampled_from([1, 7, 60, 600, 1440]))
    def time_goes_on(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule()
    def close(self) -> None:
        assert self.run(rollups.close_until(self.database, self.now))

    @rule(step=st.sampled_from([rollups.MINUTE, rollups.HOUR, rollups.DAY]))
    def roll(self, step: timedelta) -> None:
        """Roll up one step only, like a process that ends after it."""
        at = self.run(background._progress(self.database))
        self.run(background._partitions(self.database, at, step))
        self.run(rollups.advance(self.database, step))

    @rule()
    def late_hours_are_taken_and_lost(self) -> None:
        """Kill a process before it commits: the marks still exist."""

        async def killed() -> None:
            with pytest.raises(ZeroDivisionError):
                async with self.database.transaction() as tx:
                    await tx.execute("DELETE FROM rollup_marks")
                    raise ZeroDivisionError

        self.run(killed())

    @rule()
    def every_table_is_right(self) -> None:
        """Each rollup below the watermark equals its readings, and there are no other rollups."""
        self.run(self.settle())
        self.run(self._check_tables())

    async def _check_tables(self) -> None:
        async with self.database.transaction() as tx:
            await check_tables(tx, self.agent, self.rows)

    @rule(
        width=st.sampled_from(["30s", "1m", "7m", "1h", "6h", "1d", "1w", "1mo"]),
        start=st.sampled_from([-172_800, -86_401, -3_661, -1, 0]),
        seconds=st.sampled_from([3_599, 3_661, 86_400, 200_000, 345_600]),
    )
    def queries_see_what_is_not_late(self, width: str, start: int, seconds: int) -> None:
        """Queries over rollups and readings together are right at once, without waiting for the roll-up."""
        since = self.now + timedelta(seconds=start)
        until = since + min(timedelta(seconds=seconds), 9000 * timedelta(seconds=parse_interval(width).seconds))
        self.run(self._check_query(width, since, until))

    async def _check_query(self, width: str, since: datetime, until: datetime) -> None:
        for metric in METRICS:
            async with self.database.transaction() as tx:
                await check_query(tx, self.tenant, self.agent, metric, self.rows, width, since, until)

    def teardown(self) -> None:
        self.queries_see_what_is_not_late("1h", -172_800, 345_600)
        self.run(self.settle())
        self.run(self._check_tables())
        self.run(self.database.close())
        self.loop.close()


@pytest.mark.plain_postgres
def test_rollups_equal_their_readings(stack: Stack) -> None:
    """Rollups are right after any order of storing, repeating, closing, rolling up and being killed."""
    run_state_machine_as_test(
        lambda: RollupMachine(stack),  # type: ignore[arg-type]  # hypothesis takes a function too
        settings=settings(
            max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
