"""Repeated timeline events are stored as one row per hour, with their count."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    ALTER TABLE agent_timeline
        ADD COLUMN times   integer NOT NULL DEFAULT 1,
        ADD COLUMN last_at timestamptz,
        ADD COLUMN once    text;
    CREATE UNIQUE INDEX agent_timeline_once ON agent_timeline (agent_uuid, kind, once) WHERE once IS NOT NULL;
    GRANT UPDATE (times, last_at, details) ON agent_timeline TO iotistica_api;

    CREATE TABLE dead_letters_told (
        tenant_id text PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
        last_id   text NOT NULL
    );
    CALL confine_to_tenant('dead_letters_told');
    GRANT SELECT ON dead_letters_told TO iotistica_api;
    """)
