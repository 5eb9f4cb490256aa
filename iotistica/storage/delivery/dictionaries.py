"""Key dictionaries of agents that compact their payloads: in PostgreSQL, with a copy in Redis for the workers."""

from typing import Final, NamedTuple, cast
from uuid import UUID

import msgspec

from iotistica.domain.delivery import key_compaction as rules
from iotistica.domain.delivery.key_compaction import Dictionary, DictionaryUpdate
from iotistica.domain.ids import TenantId
from iotistica.storage.jsonb import jsonb
from iotistica.storage.postgres import Tx, fetch_row
from iotistica.storage.redis import Redis, dictionary_key, guarded

VERSIONS_LIMIT: Final = 8  # of an agent that are kept; older ones are deleted
CACHE_SECONDS: Final = 30 * 24 * 3600  # seconds that a copy stays in Redis without a change


class KnownDictionary(NamedTuple):
    """A dictionary and how often it was changed; with `revision` 0 there is no dictionary."""

    revision: int
    dictionary: Dictionary


NO_DICTIONARY: Final = KnownDictionary(0, Dictionary())


class _DictionaryRow(msgspec.Struct, frozen=True):
    revision: int
    content: Dictionary


GET: Final = """
SELECT revision, content FROM dictionaries
WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND version = %(version)s
"""


async def get(tx: Tx, tenant: TenantId, agent: UUID, version: int) -> KnownDictionary:
    """Return this version of an agent's dictionary; `NO_DICTIONARY` if it is not stored."""
    row = await fetch_row(tx, _DictionaryRow, GET, {"tenant": tenant, "agent": agent, "version": version})
    return KnownDictionary(row.revision, row.content) if row else NO_DICTIONARY


PUT: Final = """
INSERT INTO dictionaries (tenant_id, agent_uuid, version, revision, content)
VALUES (%(tenant)s, %(agent)s, %(version)s, %(revision)s, %(content)s::jsonb)
ON CONFLICT (agent_uuid, version) DO UPDATE
SET revision = excluded.revision, content = excluded.content, changed_at = now()
"""
DELETE_OLD: Final = """
DELETE FROM dictionaries WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s AND version NOT IN (
    SELECT version FROM dictionaries WHERE tenant_id = %(tenant)s AND agent_uuid = %(agent)s
    ORDER BY changed_at DESC, version DESC LIMIT %(kept)s)
"""


def extended(old: KnownDictionary, update: DictionaryUpdate) -> KnownDictionary:
    """Return the dictionary extended by an agent's update; raises `InvalidMessage`."""
    both = rules.merged(old.dictionary, update.dictionary)
    if old.revision and both == old.dictionary:
        return old
    return KnownDictionary(old.revision + 1, both)


async def put(tx: Tx, tenant: TenantId, agent: UUID, version: int, known: KnownDictionary) -> None:
    """Store this version of an agent's dictionary; call in the order in which its updates were received."""
    owner = {"tenant": tenant, "agent": agent}
    content = jsonb(known.dictionary)
    await tx.execute(PUT, owner | {"version": version, "revision": known.revision, "content": content})
    await tx.execute(DELETE_OLD, owner | {"kept": VERSIONS_LIMIT})


async def cache(redis: Redis, tenant: TenantId, agent: UUID, version: int, known: KnownDictionary) -> None:
    """Copy a committed dictionary to Redis, where the workers read it first."""
    key = dictionary_key(tenant, agent)
    with guarded(redis):
        async with redis.pipeline(transaction=False) as pipe:
            pipe.hset(key, str(version), msgspec.msgpack.encode(known))
            pipe.hset(key, f"{version}:revision", known.revision)
            pipe.expire(key, CACHE_SECONDS)
            await pipe.execute()


async def cached_revision(redis: Redis, tenant: TenantId, agent: UUID, version: int) -> int | None:
    """Return the revision of the copy in Redis, without reading the copy; None if there is none."""
    with guarded(redis):
        revision = await redis.hget(dictionary_key(tenant, agent), f"{version}:revision")
    return int(revision) if revision is not None else None


async def cached(redis: Redis, tenant: TenantId, agent: UUID, version: int) -> KnownDictionary:
    """Return the copy in Redis, which can be missing or of an older revision than in the database."""
    with guarded(redis):
        copy = await redis.hget(dictionary_key(tenant, agent), str(version))
    return msgspec.msgpack.decode(cast(bytes, copy), type=KnownDictionary) if copy else NO_DICTIONARY
