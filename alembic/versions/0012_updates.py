"""Updates of the agents' own software: the commands and their results."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    CREATE TABLE agent_updates (
        update_id    uuid PRIMARY KEY,
        tenant_id    text NOT NULL,
        agent_uuid   uuid NOT NULL,
        version      text NOT NULL CHECK (length(version) <= 100),
        from_version text,
        force        boolean NOT NULL,
        scheduled_at timestamptz,
        issued_at    timestamptz NOT NULL,
        expires_at   timestamptz NOT NULL,
        author       jsonb NOT NULL,
        status       text NOT NULL,
        reason       text,
        changed_at   timestamptz NOT NULL,
        is_open      boolean NOT NULL,
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );
    CREATE INDEX agent_updates_agent ON agent_updates (tenant_id, agent_uuid, issued_at);
    CREATE UNIQUE INDEX agent_updates_open ON agent_updates (agent_uuid) WHERE is_open;

    CALL confine_to_tenant('agent_updates');
    GRANT SELECT, INSERT, UPDATE ON agent_updates TO iotistica_api;
    """)
