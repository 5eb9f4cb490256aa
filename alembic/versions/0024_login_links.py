"""Links that log a user in, once."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    ALTER TABLE links DROP CONSTRAINT links_purpose_check,
        ADD CONSTRAINT links_purpose_check CHECK (purpose IN ('invitation', 'password', 'login'));
    """)
