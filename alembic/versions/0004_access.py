"""Access: keys of agents and integrations, sessions, invitations, quotas, and the audit log of every change."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCOPED = (
    "fleets",
    "provisioning_keys",
    "agent_keys",
    "agent_challenges",
    "sessions",
    "links",
    "api_keys",
    "audit_events",
)


def upgrade() -> None:
    # Foreign keys include the tenant, because their checks bypass row-level security and would otherwise let a row
    # of one tenant refer to a row of another tenant.
    op.execute("""
    ALTER TABLE tenants
        ADD quota_agents          integer CHECK (quota_agents >= 0),
        ADD quota_series          integer CHECK (quota_series >= 0),
        ADD quota_readings_minute integer CHECK (quota_readings_minute >= 0);
    CREATE TRIGGER broker_accounts_changed AFTER UPDATE OF enabled OR DELETE ON tenants
        FOR EACH STATEMENT EXECUTE FUNCTION broker_accounts_changed();

    CREATE TABLE fleets (
        fleet_uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        tenant_id  text NOT NULL REFERENCES tenants,
        name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
        created_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (tenant_id, fleet_uuid),
        UNIQUE (tenant_id, name)
    );

    -- A user name has no @, so that it cannot be an e-mail address.
    ALTER TABLE users
        ADD username  text CHECK (username ~ '^[A-Za-z0-9][A-Za-z0-9._-]{2,63}$'),
        ADD full_name text CHECK (length(full_name) <= 200),
        ADD active    boolean NOT NULL DEFAULT true,
        ADD CHECK (email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
        ADD UNIQUE (tenant_id, user_id);
    CREATE UNIQUE INDEX users_username ON users (lower(username));

    -- A login on one machine. Its refresh token changes with each use; reusing an old token ends the session.
    CREATE TABLE sessions (
        session_id   uuid PRIMARY KEY,
        tenant_id    text NOT NULL REFERENCES tenants,
        user_id      uuid NOT NULL,
        token_digest bytea NOT NULL,
        created_at   timestamptz NOT NULL DEFAULT now(),
        used_at      timestamptz NOT NULL DEFAULT now(),
        expires_at   timestamptz NOT NULL,
        ended_at     timestamptz,
        address      text,
        user_agent   text,
        FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id) ON DELETE CASCADE
    );
    CREATE INDEX sessions_user ON sessions (tenant_id, user_id);

    -- Counted for every name that is tried, so that a caller cannot tell whether a name exists.
    CREATE TABLE login_failures (
        login    bytea PRIMARY KEY,
        failures integer NOT NULL,
        last_at  timestamptz NOT NULL DEFAULT now()
    );

    -- One-time links, for an invitation or a new password.
    CREATE TABLE links (
        link_id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        tenant_id  text NOT NULL REFERENCES tenants,
        digest     bytea NOT NULL UNIQUE,
        purpose    text NOT NULL CHECK (purpose IN ('invitation', 'password')),
        email      text NOT NULL,
        role       text,
        user_id    uuid,
        created_by text,
        created_at timestamptz NOT NULL DEFAULT now(),
        expires_at timestamptz NOT NULL,
        used_at    timestamptz,
        FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, user_id) ON DELETE CASCADE
    );
    CREATE INDEX links_tenant ON links (tenant_id, created_at);

    CREATE TABLE api_keys (
        key_id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        tenant_id    text NOT NULL REFERENCES tenants,
        name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
        digest       bytea NOT NULL UNIQUE,
        hint         text NOT NULL,
        role         text NOT NULL CHECK (role IN ('admin', 'manager', 'operator', 'viewer')),
        scopes       text[],
        created_by   text,
        created_at   timestamptz NOT NULL DEFAULT now(),
        expires_at   timestamptz,
        last_used_at timestamptz,
        revoked_at   timestamptz
    );
    CREATE UNIQUE INDEX api_keys_name ON api_keys (tenant_id, name) WHERE revoked_at IS NULL;

    CREATE TABLE provisioning_keys (
        key_id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        tenant_id    text NOT NULL REFERENCES tenants,
        fleet_uuid   uuid,
        digest       bytea NOT NULL UNIQUE,
        hint         text NOT NULL,
        description  text CHECK (length(description) <= 500),
        max_uses     integer NOT NULL CHECK (max_uses BETWEEN 1 AND 100000),
        uses         integer NOT NULL DEFAULT 0 CHECK (uses <= max_uses),
        created_at   timestamptz NOT NULL DEFAULT now(),
        expires_at   timestamptz NOT NULL,
        last_used_at timestamptz,
        revoked_at   timestamptz,
        UNIQUE (tenant_id, key_id),
        FOREIGN KEY (tenant_id, fleet_uuid) REFERENCES fleets (tenant_id, fleet_uuid)
    );
    CREATE INDEX provisioning_keys_tenant ON provisioning_keys (tenant_id, created_at);

    -- new - can register until enrol_until. registered - its key is stored, but the agent has not proved it yet.
    -- active - in service. revoked - locked out. retired - out of service permanently, its readings are kept.
    ALTER TABLE agents
        ADD state         text NOT NULL DEFAULT 'active'
            CHECK (state IN ('new', 'registered', 'active', 'revoked', 'retired')),
        ADD kind          text CHECK (length(kind) <= 100),
        ADD fleet_uuid    uuid,
        ADD public_key    text CHECK (length(public_key) <= 2000),
        ADD provisioning_key_id uuid,
        ADD mac_address   text CHECK (length(mac_address) <= 100),
        ADD os_version    text CHECK (length(os_version) <= 200),
        ADD agent_version text CHECK (length(agent_version) <= 100),
        ADD registered_at timestamptz,
        ADD verified_at   timestamptz,
        ADD enrol_until   timestamptz,
        ADD replaced_by   uuid,
        ADD UNIQUE (tenant_id, agent_uuid),
        ADD FOREIGN KEY (tenant_id, fleet_uuid) REFERENCES fleets (tenant_id, fleet_uuid),
        ADD FOREIGN KEY (tenant_id, provisioning_key_id) REFERENCES provisioning_keys (tenant_id, key_id),
        ADD FOREIGN KEY (tenant_id, replaced_by) REFERENCES agents (tenant_id, agent_uuid);
    DROP INDEX agents_tenant;

    -- During a rotation an agent has two keys.
    CREATE TABLE agent_keys (
        digest     bytea PRIMARY KEY,
        tenant_id  text NOT NULL,
        agent_uuid uuid NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        used_at    timestamptz,
        expires_at timestamptz,
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );
    CREATE INDEX agent_keys_agent ON agent_keys (tenant_id, agent_uuid);

    CREATE TABLE agent_challenges (
        agent_uuid uuid NOT NULL,
        challenge  text NOT NULL,
        tenant_id  text NOT NULL,
        expires_at timestamptz NOT NULL,
        PRIMARY KEY (agent_uuid, challenge),
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );

    -- Broker users that a tenant creates have a name and rules, [{"topic": below i/{tenant}/, "access": …}].
    ALTER TABLE broker_accounts
        ADD name       text,
        ADD rules      jsonb,
        ADD created_at timestamptz NOT NULL DEFAULT now(),
        ADD UNIQUE (tenant_id, name);

    CREATE TABLE broker_renders (
        one      boolean PRIMARY KEY DEFAULT true CHECK (one),
        at       timestamptz NOT NULL,
        accounts integer NOT NULL,
        seconds  double precision NOT NULL
    );

    CREATE TABLE audit_events (
        id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        tenant_id  text NOT NULL REFERENCES tenants,
        at         timestamptz NOT NULL DEFAULT now(),
        actor_kind text NOT NULL,
        actor_id   text,
        actor_name text,
        address    text,
        action     text NOT NULL,
        subject_kind text NOT NULL,
        subject_id text NOT NULL,
        before     jsonb,
        after      jsonb
    );
    CREATE INDEX audit_events_tenant ON audit_events (tenant_id, id);
    CREATE INDEX audit_events_subject ON audit_events (tenant_id, subject_id, id);

    CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF current_setting('iotistica.deletes_tenant', true) IS DISTINCT FROM 'yes' THEN
            RAISE insufficient_privilege USING MESSAGE = 'audit events are never changed';
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
        FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
    """)
    for table in SCOPED:
        op.execute(f"CALL confine_to_tenant('{table}')")
    op.execute("""
    REVOKE UPDATE, DELETE ON audit_events FROM iotistica_worker;
    GRANT SELECT, INSERT ON audit_events TO iotistica_api;
    GRANT SELECT, INSERT, UPDATE, DELETE ON fleets, provisioning_keys, agent_keys, agent_challenges, sessions,
        links, api_keys TO iotistica_api;

    ALTER TABLE login_failures ENABLE ROW LEVEL SECURITY;
    ALTER TABLE broker_renders ENABLE ROW LEVEL SECURITY;
    CREATE POLICY worker ON login_failures TO iotistica_worker USING (true);
    CREATE POLICY worker ON broker_renders TO iotistica_worker USING (true);
    GRANT SELECT, INSERT, UPDATE, DELETE ON login_failures, broker_renders TO iotistica_worker;
    """)
