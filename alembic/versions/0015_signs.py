"""When a report was stored, which question a job was taken by, and who holds a lease."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    -- `reported_at` is when a report came, which may be long before it is applied.
    ALTER TABLE agent_states ADD stored_at timestamptz NOT NULL DEFAULT now();
    -- A question that the broker delivers again gets the same job.
    ALTER TABLE agent_job_status ADD claim_token text CHECK (length(claim_token) <= 64);
    -- Who holds a lease writes under its number.
    CREATE TABLE fences (name text PRIMARY KEY, number bigint NOT NULL);
    ALTER TABLE fences ENABLE ROW LEVEL SECURITY;
    CREATE POLICY worker ON fences TO iotistica_worker USING (true);
    GRANT SELECT, INSERT, UPDATE ON fences TO iotistica_worker;
    """)
