"""Tenants, their users and agents, and the accounts of the broker."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    CREATE TABLE tenants (
        tenant_id  text PRIMARY KEY CHECK (tenant_id ~ '^[0-9a-f]{12}$'),
        name       text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 100),
        enabled    boolean NOT NULL DEFAULT true,
        created_at timestamptz NOT NULL DEFAULT now()
    );

    CREATE TABLE users (
        user_id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        tenant_id     text NOT NULL REFERENCES tenants,
        email         text NOT NULL CHECK (length(email) BETWEEN 3 AND 254),
        password_hash text NOT NULL,
        role          text NOT NULL CHECK (role IN ('owner', 'admin', 'manager', 'operator', 'viewer')),
        created_at    timestamptz NOT NULL DEFAULT now()
    );
    -- A login does not name a tenant, so an address is unique across all tenants.
    CREATE UNIQUE INDEX users_email ON users (lower(email));
    CREATE INDEX users_tenant ON users (tenant_id);

    CREATE TABLE agents (
        agent_uuid uuid PRIMARY KEY,
        tenant_id  text NOT NULL REFERENCES tenants,
        name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX agents_tenant ON agents (tenant_id, agent_uuid);

    -- `line` is the complete line of Mosquitto's password file; the password itself is derived, never stored.
    CREATE TABLE broker_accounts (
        username   text PRIMARY KEY,
        tenant_id  text REFERENCES tenants,
        agent_uuid uuid UNIQUE REFERENCES agents ON DELETE CASCADE,
        generation integer NOT NULL DEFAULT 1,
        line       text NOT NULL,
        enabled    boolean NOT NULL DEFAULT true
    );

    CREATE FUNCTION broker_accounts_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('broker_accounts', '');
        RETURN NULL;
    END $$;
    CREATE TRIGGER broker_accounts_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON broker_accounts
        FOR EACH STATEMENT EXECUTE FUNCTION broker_accounts_changed();
    """)
