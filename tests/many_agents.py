"""Agents by the thousand, written straight into the database."""

import psycopg

from tests.serving import Served

ADD = """
INSERT INTO agents (agent_uuid, tenant_id, name, state)
SELECT gen_random_uuid(), %(tenant)s, 'gateway-' || lpad(n::text, 6, '0'), 'active'
FROM generate_series(1, %(number)s) n
"""
HEAR = """
INSERT INTO agent_presence (agent_uuid, tenant_id, status, since, data_at, heard_at)
SELECT agent_uuid, tenant_id, status, heard_at, heard_at, heard_at
FROM agents a, LATERAL (
    SELECT CASE WHEN name LIKE '%%77' THEN 'offline' ELSE 'online' END AS status,
           CASE WHEN name LIKE '%%77' THEN now() - interval '1 day' ELSE now() END AS heard_at
) presence
WHERE tenant_id = %(tenant)s AND NOT EXISTS (SELECT FROM agent_presence p
                                                          WHERE p.agent_uuid = a.agent_uuid)
"""


def add_many(server: Served, tenant: str, number: int) -> None:
    """Add agents named gateway-000001 and so on; one in a hundred is offline, the others are online."""
    with psycopg.connect(server.runtime().database_url) as database:
        database.execute(ADD, {"tenant": tenant, "number": number})
        database.execute(HEAR, {"tenant": tenant})
        database.execute("ANALYZE agents")
        database.execute("ANALYZE agent_presence")
