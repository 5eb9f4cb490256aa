"""How many of its devices and services each agent reports as failing."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    -- Set with each report; agents report about every minute.
    ALTER TABLE agent_states ADD faults smallint NOT NULL DEFAULT 0;
    CREATE INDEX agent_states_failing ON agent_states (tenant_id, agent_uuid) WHERE faults > 0;
    """)
