"""The membership in the two roles that PostgreSQL 16 and newer do not give to the user who created them."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Without the right to grant, the check after the migration names the statement for an administrator.
    op.execute("""
    DO $$
    DECLARE
        role text;
    BEGIN
        IF current_setting('server_version_num')::int < 160000 THEN
            RETURN;
        END IF;
        FOREACH role IN ARRAY ARRAY['iotistica_api', 'iotistica_worker'] LOOP
            BEGIN
                IF NOT pg_has_role(current_user, role, 'SET') THEN
                    EXECUTE format('GRANT %I TO CURRENT_USER', role);
                END IF;
            EXCEPTION
                WHEN insufficient_privilege THEN NULL;
            END;
        END LOOP;
    END $$;
    """)
