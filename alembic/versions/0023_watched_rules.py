"""Which alert rules have been applied to what was stored before they were written."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    -- The generation of each rule that has judged what others had judged before.
    CREATE TABLE watched_rules (
        rule_id    uuid PRIMARY KEY REFERENCES alert_rules ON DELETE CASCADE,
        tenant_id  text NOT NULL REFERENCES tenants ON DELETE CASCADE,
        generation integer NOT NULL
    );
    INSERT INTO watched_rules SELECT rule_id, tenant_id, generation FROM alert_rules;
    CALL confine_to_tenant('watched_rules');
    GRANT SELECT ON watched_rules TO iotistica_api;
    -- Where 0021 granted it for the columns of the score alone.
    GRANT UPDATE ON readings TO iotistica_worker;
    """)
