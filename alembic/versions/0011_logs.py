"""Log lines of agents, with one partition per day."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLES = "('readings', 'readings_1m', 'readings_1h', 'agent_logs')"


def upgrade() -> None:
    op.execute("""
    CREATE SEQUENCE agent_logs_id;
    CREATE TABLE agent_logs (
        time       timestamptz NOT NULL,
        id         bigint NOT NULL DEFAULT nextval('agent_logs_id'),
        tenant_id  text NOT NULL,
        agent_uuid uuid NOT NULL,
        service    text NOT NULL,
        level      smallint NOT NULL,
        is_system  boolean NOT NULL,
        is_stderr  boolean NOT NULL,
        message    text NOT NULL,
        meta       jsonb
    ) PARTITION BY RANGE (time);
    ALTER SEQUENCE agent_logs_id OWNED BY agent_logs.id;
    CREATE INDEX agent_logs_agent ON agent_logs (tenant_id, agent_uuid, time, id);

    -- Batches of the last days, so that a batch that is received again is stored once.
    CREATE TABLE agent_log_batches (
        tenant_id  text NOT NULL,
        agent_uuid uuid NOT NULL,
        batch      text NOT NULL CHECK (length(batch) <= 210),
        at         timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (agent_uuid, batch),
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );
    CREATE INDEX agent_log_batches_at ON agent_log_batches (at);
    CREATE INDEX agent_log_batches_tenant ON agent_log_batches (tenant_id);

    -- The services for which an agent has logged, so that listing them does not require scanning log lines.
    CREATE TABLE agent_log_services (
        tenant_id  text NOT NULL,
        agent_uuid uuid NOT NULL,
        service    text NOT NULL,
        last_at    timestamptz NOT NULL,
        PRIMARY KEY (agent_uuid, service),
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );
    CREATE INDEX agent_log_services_tenant ON agent_log_services (tenant_id);

    CALL confine_to_tenant('agent_logs');
    CALL confine_to_tenant('agent_log_batches');
    CALL confine_to_tenant('agent_log_services');
    GRANT USAGE ON SEQUENCE agent_logs_id TO iotistica_worker;
    GRANT SELECT ON agent_logs, agent_log_batches, agent_log_services TO iotistica_api;
    """)
    op.execute(f"""
    CREATE OR REPLACE FUNCTION make_partition(parent text, first date, next date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        name text := parent || '_p' || to_char(first, 'YYYYMMDD');
    BEGIN
        IF parent NOT IN {TABLES} THEN
            RAISE invalid_parameter_value USING MESSAGE = parent || ' has no partitions';
        END IF;
        IF NOT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = to_regclass('public.' || parent)) THEN
            RETURN false;  -- TimescaleDB creates its own chunks
        END IF;
        -- Two workers can need the same partition; the lock is held until the commit, so one of them waits.
        PERFORM pg_advisory_xact_lock(67350);
        IF to_regclass('public.' || name) IS NOT NULL THEN
            RETURN false;
        END IF;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING INDEXES)', name, parent);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name,
                       to_char(first, 'YYYY-MM-DD') || 'Z', to_char(next, 'YYYY-MM-DD') || 'Z');
        RETURN true;
    END $$;

    CREATE OR REPLACE FUNCTION drop_partition(parent text, first date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        IF parent NOT IN {TABLES} THEN
            RAISE invalid_parameter_value USING MESSAGE = parent || ' has no partitions';
        END IF;
        EXECUTE format('DROP TABLE IF EXISTS %I', parent || '_p' || to_char(first, 'YYYYMMDD'));
    END $$;
    """)
