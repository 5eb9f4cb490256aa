"""Finishing stream entries: they are acknowledged and removed once their content is committed."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from iotistica.domain.ids import TenantId
from iotistica.storage.delivery import dead_letters
from iotistica.storage.delivery.dead_letters import NewDeadLetter
from iotistica.storage.delivery.streams import Entry, EntryKey, StreamKey
from iotistica.storage.redis import Redis, dead_letter_stream, guarded, ledger_key, parked_stream

PARKED_LIMIT: Final = 10_000  # parked messages of a tenant
PARKED_BYTES_LIMIT: Final = 32 << 20  # bytes of their payloads


class ParkedMessage(NamedTuple):
    """A compacted message whose dictionary is missing or incomplete; `revision` is that of the known dictionary."""

    topic: bytes
    payload: bytes
    received: int
    agent: UUID
    version: int
    revision: int

    def arguments(self) -> tuple[Any, ...]:
        """Return the arguments for the script `ACKNOWLEDGE`."""
        return (self.topic, self.payload, self.received, str(self.agent), self.version, self.revision)


class NotStored(NamedTuple):
    """The messages of an entry that are not stored: dead letters and parked messages."""

    letters: Sequence[NewDeadLetter] = ()
    parked: Sequence[ParkedMessage] = ()


ALL_STORED: Final = NotStored()

# An entry is finished once. A second call, after a lost reply or by another consumer that took the entry over,
# finds it acknowledged and changes nothing: neither the counts nor the dead letters and parked messages.
ACKNOWLEDGE: Final = dead_letters.ADD_LETTER_FUNCTION + (
    """
local stream, dlq, ledger, parked = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local finished, i = 0, 2
while i <= #ARGV do
    local id, messages = ARGV[i], tonumber(ARGV[i + 1])
    local letters, parks = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
    i = i + 4
    local open = redis.call('XACK', stream, ARGV[1], id) == 1
    if open then
        redis.call('XDEL', stream, id)
        redis.call('HINCRBY', ledger, 'waiting', parks - messages)
        finished = finished + 1
    end
    for _ = 1, letters do
        if open then
            put_letter(dlq, ledger, stream, unpack(ARGV, i, i + 5))
        end
        i = i + 6
    end
    for _ = 1, parks do
        if open then
            local topic, payload, received, agent, version, revision = unpack(ARGV, i, i + 5)
            local bytes = tonumber(redis.call('HGET', ledger, 'parked_bytes') or '0')
            if redis.call('XLEN', parked) < {parked} and bytes + #payload <= {bytes} then
                redis.call('XADD', parked, '*', 'topic', topic, 'payload', payload, 'received', received,
                    'agent', agent, 'v', version, 'revision', revision)
                redis.call('HINCRBY', ledger, 'parked_bytes', #payload)
            else
                redis.call('HINCRBY', ledger, 'waiting', -1)
                redis.call('HINCRBY', ledger, 'refused', 1)
                put_letter(dlq, ledger, stream, topic, payload, received, 'no_dictionary',
                    'too many messages wait for a dictionary', 1)
            end
        end
        i = i + 6
    end
end
return finished
""".replace("{parked}", str(PARKED_LIMIT)).replace("{bytes}", str(PARKED_BYTES_LIMIT))
)


async def acknowledge(redis: Redis, entries: Sequence[Entry], not_stored: Mapping[EntryKey, NotStored]) -> None:
    """Acknowledge and remove entries whose content is committed; keep their dead letters and parked messages.

    Atomic for each stream, and safe to repeat after a lost reply.
    """
    by_stream: dict[StreamKey, list[Entry]] = {}
    for entry in entries:
        by_stream.setdefault((entry.tenant, entry.kind), []).append(entry)
    with guarded(redis):
        for (tenant, kind), entries_of_stream in by_stream.items():
            arguments: list[Any] = [kind.group(tenant)]
            for entry in entries_of_stream:
                letters, parked = not_stored.get(entry.key, ALL_STORED)
                arguments += [entry.id, len(entry.messages), len(letters), len(parked)]
                for letter in letters:
                    arguments += letter.arguments()
                for message in parked:
                    arguments += message.arguments()
            await redis.eval(ACKNOWLEDGE, 4, *redis_keys(tenant, kind.stream(tenant)), *arguments)


def redis_keys(tenant: TenantId, stream: str) -> tuple[str, ...]:
    """Return the keys of a tenant that the scripts for dead letters and parked messages use."""
    return stream, dead_letter_stream(tenant), ledger_key(tenant), parked_stream(tenant)
