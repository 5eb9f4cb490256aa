"""The refresh token before the current one, so that its repeated use can be told from a theft."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    ALTER TABLE sessions ADD previous_digest bytea, ADD rotated_at timestamptz;
    """)
