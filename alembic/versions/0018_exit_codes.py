"""Exit codes of 32 bits without a sign, which Windows has."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    ALTER TABLE agent_job_status ALTER exit_code TYPE bigint, ALTER executed_steps TYPE bigint;
    """)
