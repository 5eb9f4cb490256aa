"""Full caches forget what was used or added longest ago, and expired entries are queried again."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from iotistica.api.http import authentication
from iotistica.api.http.access_tokens import AccessTokens
from iotistica.api.http.authentication import Authenticator
from iotistica.background import clock_skew
from iotistica.domain.access import credentials
from iotistica.domain.delivery import key_compaction
from iotistica.domain.delivery.key_compaction import Dictionary, Expander
from iotistica.domain.ids import TenantId
from iotistica.errors import TooMany
from iotistica.ingest import dictionary_cache, series_cache
from iotistica.ingest.dictionary_cache import DictionaryCache
from iotistica.ingest.series_cache import SeriesCache, SeriesFacts
from iotistica.storage import redis as redis_
from iotistica.storage.access import api_keys, rate_limits
from iotistica.storage.access.rate_limits import RateLimit, RateLimiter
from iotistica.storage.agents import agents as agent_rows
from iotistica.storage.agents import directory, poll_answer_cache
from iotistica.storage.agents.agent_cache import AgentCache
from iotistica.storage.agents.directory import Directory
from iotistica.storage.agents.poll_answer_cache import PollAnswer, PollAnswerCache
from iotistica.storage.delivery import dictionaries, live
from iotistica.storage.delivery.dictionaries import KnownDictionary
from iotistica.storage.delivery.live import WatchedAgents

TENANT = TenantId("0123456789ab")


class Clock:
    """Stands in for the module `time`; its time passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_000_000.0


class NoDatabase:
    """Opens transactions without a server, for statements that a test replaces."""

    @asynccontextmanager
    async def transaction(self, *_: Any, **__: Any) -> AsyncIterator[None]:
        yield None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (directory, authentication, live, rate_limits):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def queried(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """The agents that the directory queried; those with an even number exist."""
    queried: list[UUID] = []

    async def tenants_of(_: Any, agents: Collection[UUID]) -> dict[UUID, TenantId]:
        queried.extend(agents)
        return {agent: TENANT for agent in agents if agent.int % 2 == 0}

    monkeypatch.setattr(agent_rows, "tenants_of", tenants_of)
    return queried


async def test_each_agent_of_the_directory_expires_alone(clock: Clock, queried: list[UUID]) -> None:
    """An agent is queried again 10 s after its own query began, and not when another agent's answer expires."""
    cache = Directory(NoDatabase())  # type: ignore[arg-type]
    first, second = UUID(int=2), UUID(int=4)
    await cache.owners([first])
    clock.now += 6
    await cache.owners([first, second])
    clock.now += 4
    assert await cache.owners([first, second]) == {first: TENANT, second: TENANT}
    assert queried == [first, second, first]


async def test_a_full_directory_keeps_the_newest(
    clock: Clock, queried: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory drops the oldest agents until a tenth of it is free."""
    monkeypatch.setattr(directory, "AGENTS_LIMIT", 20)
    cache = Directory(NoDatabase())  # type: ignore[arg-type]
    agents = [UUID(int=2 * n) for n in range(21)]
    for agent in agents:
        await cache.owners([agent])
    queried.clear()
    await cache.owners(agents[3:])
    assert queried == []
    await cache.owners(agents[:3])
    assert queried == agents[:3]


async def test_unknown_agents_are_queried_again_after_a_while(
    clock: Clock, queried: list[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown agent is queried again after 2 s; above the limit the oldest is, and the others stay cached."""
    monkeypatch.setattr(directory, "MISSES_LIMIT", 2)
    cache = Directory(NoDatabase())  # type: ignore[arg-type]
    agents = [UUID(int=n) for n in (1, 3, 5)]
    for agent in agents:
        assert await cache.owners([agent]) == {}
    await cache.owners(agents[1:])
    assert queried == agents
    await cache.owners(agents[:1])
    assert queried == [*agents, agents[0]]
    clock.now += 2
    await cache.owners(agents[2:])
    assert queried == [*agents, agents[0], agents[2]]


async def test_credentials_are_cached_for_a_second(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential is looked up again after 1 s; a full cache keeps the credentials that were used last."""
    looked_up: list[bytes] = []

    async def find(_: Any, digest: bytes) -> SimpleNamespace:
        looked_up.append(digest)
        return SimpleNamespace(scopes=None, tenant_id=TENANT, key_id=uuid4(), name="key", role="viewer")

    monkeypatch.setattr(api_keys, "find", find)
    monkeypatch.setattr(authentication, "CREDENTIALS_LIMIT", 2)
    key = bytes(32)
    authenticator = Authenticator(NoDatabase(), AccessTokens(key), key, None)  # type: ignore[arg-type]

    async def lookups(name: str, *, fresh: bool = False) -> int:
        before = len(looked_up)
        secret = credentials.INTEGRATION + name
        await authenticator.authenticate({"x-api-key": secret}, "", fresh=fresh)
        return len(looked_up) - before

    assert [await lookups(name) for name in "ababa"] == [1, 1, 0, 0, 0]
    assert await lookups("c") == 1
    assert [await lookups(name) for name in "ac"] == [0, 0]
    assert await lookups("b") == 1
    assert await lookups("b", fresh=True) == 1
    clock.now += 1
    assert await lookups("b") == 1


async def test_a_full_set_of_entity_tags_keeps_those_of_the_agents_that_polled_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tag of the agent that polled least recently is dropped."""
    monkeypatch.setattr(poll_answer_cache, "AGENTS_LIMIT", 2)
    agent_cache = AgentCache(SimpleNamespace(breaker=SimpleNamespace(is_closed=False)))  # type: ignore[arg-type]
    monkeypatch.setattr(agent_cache, "target_counter", lambda _: 1)
    answers = PollAnswerCache(agent_cache, None, None, bytes(32))  # type: ignore[arg-type]
    first, second, third = uuid4(), uuid4(), uuid4()
    answers._cache(first, PollAnswer(1, '"a"', b"{}"))
    answers._cache(second, PollAnswer(1, '"b"', b"{}"))
    assert answers.current_tag(first) == (1, '"a"')
    answers._cache(third, PollAnswer(1, '"c"', b"{}"))
    assert [answers.current_tag(agent) for agent in (first, second, third)] == [(1, '"a"'), None, (1, '"c"')]


def test_a_full_series_cache_drops_the_agents_that_reported_least_recently(monkeypatch: pytest.MonkeyPatch) -> None:
    """The series of the agent that reported last stay cached, and a changed series does not count twice."""
    monkeypatch.setattr(series_cache, "SERIES_LIMIT", 3)
    cache, (first, second, third) = SeriesCache(), (uuid4(), uuid4(), uuid4())
    reading: Any = SimpleNamespace(metric_name="t", unit="C", protocol="modbus", device_uuid=None)
    facts = {"t": SeriesFacts("C", "modbus", None), "u": SeriesFacts("C", "modbus", None)}
    for _ in range(5):
        cache.remember({first: facts})
    cache.remember({second: facts})
    assert not cache._unknown({second: [reading], first: [reading]})
    cache.remember({third: facts})
    assert cache._unknown({first: [reading], second: [reading], third: [reading]}).keys() == {second}


async def test_a_full_dictionary_cache_keeps_the_dictionaries_that_were_used_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An agent's dictionaries and their revisions are dropped together, and then loaded again."""

    async def cached_revision(*_: Any) -> int:
        return 1

    async def cached(*_: Any) -> KnownDictionary:
        return KnownDictionary(revision=1, dictionary=Dictionary())

    monkeypatch.setattr(dictionaries, "cached_revision", cached_revision)
    monkeypatch.setattr(dictionaries, "cached", cached)
    monkeypatch.setattr(dictionary_cache, "AGENTS_LIMIT", 2)
    cache = DictionaryCache(None, None)  # type: ignore[arg-type]
    first, second, third = uuid4(), uuid4(), uuid4()
    assert await cache.refresh(TENANT, first, 1)
    assert await cache.refresh(TENANT, second, 1)
    assert not await cache.refresh(TENANT, first, 1)
    assert await cache.refresh(TENANT, third, 1)
    assert [cache.revision(agent, 1) for agent in (first, second, third)] == [1, 0, 1]
    assert not cache.expanders_of(second)
    assert await cache.refresh(TENANT, second, 1)


async def test_many_subjects_do_not_reset_a_rate_limit(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Redis, the count of a subject that keeps calling survives any number of other subjects."""
    monkeypatch.setattr(rate_limits, "LOCAL_LIMIT", 3)
    away = redis_.client("redis://127.0.0.1:1/0")
    limits, limit = RateLimiter(away), RateLimit("test", 5)
    for n in range(5):
        await limits.hit(limit, "persistent")
        for m in range(2):
            await limits.hit(limit, f"other {n} {m}")
    with pytest.raises(TooMany):
        await limits.hit(limit, "persistent")
    await away.aclose()


def test_many_shapes_do_not_displace_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit, the oldest tenth of the shapes is dropped and all others stay cached."""
    monkeypatch.setattr(key_compaction, "SHAPES_LIMIT", 20)
    expander = Expander(1, Dictionary(fields={"key": {n: f"x{n}" for n in range(21)}}))
    for n in range(21):
        expander.expand({"v": 1, "p": [[n, 1]]}, "x")
    assert [shape[0][0] for _, shape in expander._shapes] == [*range(2, 21)]


async def test_the_watched_agents_of_a_tenant_are_read_again_after_a_second(clock: Clock) -> None:
    """Within a second they come from memory, also if there are none."""
    reads: list[Any] = []

    async def zrangebyscore(*key: Any) -> list[bytes]:
        reads.append(key)
        return []

    client = redis_.client("redis://127.0.0.1:1/0")
    client.zrangebyscore = zrangebyscore  # type: ignore[method-assign, assignment]
    watched = WatchedAgents(client)
    for _ in range(3):
        assert await watched.of_tenant(TENANT) == frozenset()
    assert len(reads) == 1
    clock.now += 1
    await watched.of_tenant(TENANT)
    assert len(reads) == 2
    await client.aclose()


def test_a_full_clock_watch_keeps_the_agents_it_saw_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new lagging agent displaces the one seen least recently, and resets no other."""
    monkeypatch.setattr(clock_skew, "REMEMBERED", 2)
    watch, (first, second, third) = clock_skew.ClockSkewWatch(), (uuid4(), uuid4(), uuid4())
    hour = timedelta(hours=-1)
    assert [watch._lateness(agent, hour) for agent in (first, second, first, third, first)] == [1, 1, 2, 1, 3]
    assert watch._lateness(second, hour) == 1
    assert watch._lateness(first, timedelta(0)) == 0
    assert watch._lateness(first, hour) == 1
