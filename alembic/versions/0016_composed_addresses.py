"""E-mail addresses in NFKC, in which they are compared."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # An address that would equal another user's stays as it is: its user logs in by user name or asks for a change.
    op.execute("""
    UPDATE users u SET email = normalize(u.email, NFKC)
    WHERE u.email IS NOT NFKC NORMALIZED AND NOT EXISTS (
        SELECT FROM users o
        WHERE o.user_id <> u.user_id AND lower(normalize(o.email, NFKC)) = lower(normalize(u.email, NFKC)));
    UPDATE links SET email = normalize(email, NFKC) WHERE email IS NOT NFKC NORMALIZED;
    """)
