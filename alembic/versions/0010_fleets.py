"""Tags, properties of fleets, and the presence of each agent."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    ALTER TABLE fleets
        ADD description text CHECK (length(description) <= 500),
        ADD tags        jsonb NOT NULL DEFAULT '{}';
    -- An agent that is not active is left out of rollouts, and its silence is not reported.
    ALTER TABLE agents ADD active boolean NOT NULL DEFAULT true;
    CREATE INDEX agents_fleet ON agents (tenant_id, fleet_uuid, agent_uuid);
    CREATE INDEX agents_name ON agents (tenant_id, name, agent_uuid);

    CREATE TABLE agent_tags (
        tenant_id  text NOT NULL,
        agent_uuid uuid NOT NULL,
        key        text NOT NULL CHECK (length(key) BETWEEN 1 AND 63),
        value      text NOT NULL CHECK (length(value) <= 200),
        PRIMARY KEY (agent_uuid, key),
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );
    CREATE INDEX agent_tags_value ON agent_tags (tenant_id, key, value, agent_uuid);

    -- A defined key accepts only the values listed here, if any are listed.
    CREATE TABLE tag_definitions (
        tenant_id   text NOT NULL REFERENCES tenants,
        key         text NOT NULL CHECK (length(key) BETWEEN 1 AND 63),
        description text CHECK (length(description) <= 500),
        values      text[] NOT NULL DEFAULT '{}' CHECK (cardinality(values) <= 1000),
        created_at  timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant_id, key)
    );

    -- `data_at` is the time of the last reading, state or other report; `heard_at` counts polls and logs as well.
    -- `turns` are the times of the last changes of status.
    CREATE TABLE agent_presence (
        agent_uuid uuid PRIMARY KEY,
        tenant_id  text NOT NULL,
        status     text NOT NULL CHECK (status IN ('online', 'silent', 'offline')),
        since      timestamptz NOT NULL,
        data_at    timestamptz,
        heard_at   timestamptz NOT NULL,
        turns      timestamptz[] NOT NULL DEFAULT '{}',
        flapping   boolean NOT NULL DEFAULT false,
        healed_at  timestamptz,
        heals      integer NOT NULL DEFAULT 0,
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    ) WITH (fillfactor = 60);
    CREATE INDEX agent_presence_status ON agent_presence (tenant_id, status, agent_uuid);

    -- Since when the platform itself has accepted messages without a pause. Silence before that does not count.
    CREATE TABLE presence_watch (
        one       boolean PRIMARY KEY DEFAULT true CHECK (one),
        since     timestamptz NOT NULL DEFAULT now(),
        looked_at timestamptz NOT NULL DEFAULT '-infinity'
    );
    INSERT INTO presence_watch DEFAULT VALUES;

    CALL confine_to_tenant('agent_tags');
    CALL confine_to_tenant('tag_definitions');
    CALL confine_to_tenant('agent_presence');
    GRANT SELECT, INSERT, UPDATE, DELETE ON agent_tags, tag_definitions TO iotistica_api;
    GRANT SELECT ON agent_presence TO iotistica_api;
    ALTER TABLE presence_watch ENABLE ROW LEVEL SECURITY;
    CREATE POLICY worker ON presence_watch TO iotistica_worker USING (true);
    GRANT SELECT, UPDATE ON presence_watch TO iotistica_worker;
    """)
