"""Layouts of dashboards, of one user or shared in the tenant."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    CREATE TABLE dashboard_layouts (
        layout_id  uuid PRIMARY KEY,
        tenant_id  text NOT NULL REFERENCES tenants ON DELETE CASCADE,
        name       text NOT NULL,
        -- Null for what an API key has created, or a user who was deleted since; such layouts are shared.
        owner_id   uuid,
        is_shared  boolean NOT NULL CHECK (is_shared OR owner_id IS NOT NULL),
        content    jsonb NOT NULL,
        version    integer NOT NULL DEFAULT 1,
        author     jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        FOREIGN KEY (tenant_id, owner_id) REFERENCES users (tenant_id, user_id) ON DELETE SET NULL (owner_id)
    );
    CREATE INDEX dashboard_layouts_list ON dashboard_layouts (tenant_id, name, layout_id);
    CREATE INDEX dashboard_layouts_owner ON dashboard_layouts (tenant_id, owner_id);
    CALL confine_to_tenant('dashboard_layouts');
    GRANT SELECT, INSERT, UPDATE, DELETE ON dashboard_layouts TO iotistica_api;
    """)
