"""The time a report was stored, the token of the request that claimed a job, and the holder of each lease."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    -- `reported_at` is the time a report was received, which can be long before it is applied.
    ALTER TABLE agent_states ADD stored_at timestamptz NOT NULL DEFAULT now();
    -- A request that the broker delivers again receives the same job.
    ALTER TABLE agent_job_status ADD claim_token text CHECK (length(claim_token) <= 64);
    -- The holder of a lease writes with its fencing number.
    CREATE TABLE fences (name text PRIMARY KEY, number bigint NOT NULL);
    ALTER TABLE fences ENABLE ROW LEVEL SECURITY;
    CREATE POLICY worker ON fences TO iotistica_worker USING (true);
    GRANT SELECT, INSERT, UPDATE ON fences TO iotistica_worker;
    """)
