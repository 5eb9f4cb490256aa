"""Target states of agents: immutable versions, and a number per agent that rises whenever its target changes."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    -- Versions of an agent or of a fleet. Secrets are sealed; `changes` is the difference to the previous version.
    CREATE TABLE target_versions (
        tenant_id  text NOT NULL,
        agent_uuid uuid,
        fleet_uuid uuid,
        subject    uuid GENERATED ALWAYS AS (coalesce(agent_uuid, fleet_uuid)) STORED,
        version    integer NOT NULL CHECK (version > 0),
        apps       jsonb NOT NULL,
        config     jsonb NOT NULL,
        changes    jsonb NOT NULL,
        note       text CHECK (length(note) <= 500),
        restores   integer,
        author     jsonb NOT NULL,
        at         timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (subject, version),
        CHECK (num_nonnulls(agent_uuid, fleet_uuid) = 1),
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE,
        FOREIGN KEY (tenant_id, fleet_uuid) REFERENCES fleets (tenant_id, fleet_uuid) ON DELETE CASCADE
    );
    CREATE TABLE targets (
        tenant_id   text NOT NULL,
        agent_uuid  uuid,
        fleet_uuid  uuid,
        subject     uuid GENERATED ALWAYS AS (coalesce(agent_uuid, fleet_uuid)) STORED PRIMARY KEY,
        latest      integer NOT NULL,
        deployed    integer,
        deployed_at timestamptz,
        deployed_by jsonb,
        CHECK (num_nonnulls(agent_uuid, fleet_uuid) = 1),
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE,
        FOREIGN KEY (tenant_id, fleet_uuid) REFERENCES fleets (tenant_id, fleet_uuid) ON DELETE CASCADE
    );

    -- One row per agent. `counter` rises with every write that changes what the agent receives, and is the version
    -- that it receives; `changed` is the last transaction that changed anything cached for answering polls.
    CREATE TABLE agent_sync (
        agent_uuid uuid PRIMARY KEY,
        tenant_id  text NOT NULL,
        counter    bigint NOT NULL DEFAULT 1,
        changed    xid8 NOT NULL DEFAULT pg_current_xact_id(),
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );
    CREATE INDEX agent_sync_changed ON agent_sync (changed);
    CREATE INDEX agent_sync_tenant ON agent_sync (tenant_id);
    INSERT INTO agent_sync (agent_uuid, tenant_id) SELECT agent_uuid, tenant_id FROM agents;

    -- The times of each agent's last poll and last received target, written only now and then.
    CREATE TABLE agent_polls (
        agent_uuid   uuid PRIMARY KEY,
        tenant_id    text NOT NULL,
        polled_at    timestamptz NOT NULL,
        fetched_at   timestamptz,
        fetched      bigint,
        polls        bigint NOT NULL,
        not_modified bigint NOT NULL,
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    ) WITH (fillfactor = 70);
    CREATE INDEX agent_polls_tenant ON agent_polls (tenant_id);

    -- Raised by deletions, since a deleted row cannot show that it changed.
    CREATE TABLE sync_epoch (one boolean PRIMARY KEY DEFAULT true CHECK (one), epoch bigint NOT NULL);
    INSERT INTO sync_epoch (epoch) VALUES (1);

    CREATE FUNCTION agents_changed() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            INSERT INTO agent_sync (agent_uuid, tenant_id) VALUES (NEW.agent_uuid, NEW.tenant_id);
        ELSIF TG_OP = 'DELETE' THEN
            UPDATE sync_epoch SET epoch = epoch + 1;
            RETURN OLD;
        ELSE
            UPDATE agent_sync SET changed = pg_current_xact_id(),
                counter = counter + (OLD.fleet_uuid IS DISTINCT FROM NEW.fleet_uuid)::int
            WHERE agent_uuid = NEW.agent_uuid;
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER agents_come AFTER INSERT OR DELETE ON agents FOR EACH ROW EXECUTE FUNCTION agents_changed();
    CREATE TRIGGER agents_change AFTER UPDATE ON agents FOR EACH ROW
        WHEN ((OLD.state, OLD.name, OLD.fleet_uuid) IS DISTINCT FROM (NEW.state, NEW.name, NEW.fleet_uuid))
        EXECUTE FUNCTION agents_changed();

    CREATE FUNCTION agent_keys_changed() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        UPDATE agent_sync SET changed = pg_current_xact_id()
        WHERE agent_uuid = CASE TG_OP WHEN 'DELETE' THEN OLD.agent_uuid ELSE NEW.agent_uuid END;
        RETURN NULL;
    END $$;
    CREATE TRIGGER agent_keys_changed AFTER INSERT OR UPDATE OR DELETE ON agent_keys
        FOR EACH ROW EXECUTE FUNCTION agent_keys_changed();

    CREATE FUNCTION tenant_switched() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        UPDATE agent_sync SET changed = pg_current_xact_id() WHERE tenant_id = NEW.tenant_id;
        RETURN NULL;
    END $$;
    CREATE TRIGGER tenant_switched AFTER UPDATE OF enabled ON tenants
        FOR EACH ROW WHEN (OLD.enabled <> NEW.enabled) EXECUTE FUNCTION tenant_switched();

    CREATE FUNCTION agent_sync_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_notify('agent_sync', '');
        RETURN NULL;
    END $$;
    CREATE TRIGGER agent_sync_changed AFTER INSERT OR UPDATE ON agent_sync
        FOR EACH STATEMENT EXECUTE FUNCTION agent_sync_changed();
    CREATE TRIGGER agent_sync_changed AFTER UPDATE ON sync_epoch
        FOR EACH STATEMENT EXECUTE FUNCTION agent_sync_changed();
    REVOKE ALL ON FUNCTION agents_changed, agent_keys_changed, tenant_switched FROM PUBLIC;

    CALL confine_to_tenant('target_versions');
    CALL confine_to_tenant('targets');
    CALL confine_to_tenant('agent_sync');
    CALL confine_to_tenant('agent_polls');
    REVOKE UPDATE ON target_versions FROM iotistica_worker;
    GRANT SELECT, INSERT ON target_versions TO iotistica_api;
    GRANT SELECT, INSERT, UPDATE ON targets TO iotistica_api;
    GRANT SELECT, UPDATE ON agent_sync TO iotistica_api;
    GRANT SELECT ON agent_polls TO iotistica_api;
    ALTER TABLE sync_epoch ENABLE ROW LEVEL SECURITY;
    CREATE POLICY worker ON sync_epoch TO iotistica_worker USING (true);
    GRANT SELECT ON sync_epoch TO iotistica_worker;
    """)
