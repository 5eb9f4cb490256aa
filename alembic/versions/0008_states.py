"""Reported states of agents, and the timeline of each agent."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    -- `state` seldom changes, `lively` changes with nearly every report, so a long stable value is not rewritten.
    -- `stamps` holds the time at which each key was received, in us since the epoch; 0 if it came from a replay.
    CREATE TABLE agent_states (
        agent_uuid  uuid PRIMARY KEY,
        tenant_id   text NOT NULL,
        state       jsonb NOT NULL,
        lively      jsonb NOT NULL,
        stamps      jsonb NOT NULL,
        reported_at timestamptz,
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    ) WITH (fillfactor = 70);
    CREATE INDEX agent_states_tenant ON agent_states (tenant_id);

    CREATE TABLE agent_timeline (
        id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        tenant_id  text NOT NULL,
        agent_uuid uuid NOT NULL,
        at         timestamptz NOT NULL,
        kind       text NOT NULL,
        details    jsonb NOT NULL DEFAULT '{}',
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );
    CREATE INDEX agent_timeline_agent ON agent_timeline (tenant_id, agent_uuid, at, id);
    CREATE INDEX agent_timeline_at ON agent_timeline (at);

    CALL confine_to_tenant('agent_states');
    CALL confine_to_tenant('agent_timeline');
    GRANT SELECT ON agent_states TO iotistica_api;
    GRANT SELECT, INSERT ON agent_timeline TO iotistica_api;
    """)
