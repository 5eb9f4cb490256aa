"""Two roles that own no tables, and row-level security for every statement of the API."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCOPED = (
    "tenants",
    "users",
    "agents",
    "broker_accounts",
    "series",
    "readings_ledger",
    "readings_ledger_totals",
    "rejections",
    "rejections_totals",
    "payloads_ledger",
    "payloads_ledger_totals",
)


def upgrade() -> None:
    # Roles belong to the cluster, so another database of the cluster may already have created them.
    op.execute("""
    DO $$
    DECLARE
        role text;
    BEGIN
        FOREACH role IN ARRAY ARRAY['iotistica_api', 'iotistica_worker'] LOOP
            BEGIN
                IF to_regrole(role) IS NULL THEN
                    EXECUTE format('CREATE ROLE %I NOLOGIN', role);
                END IF;
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RAISE insufficient_privilege USING MESSAGE = format(
                        'the database user %I may not create roles. As an administrator, run:'
                        ' CREATE ROLE iotistica_api; CREATE ROLE iotistica_worker;'
                        ' GRANT iotistica_api, iotistica_worker TO %I;', current_user, current_user);
            END;
            BEGIN
                -- From PostgreSQL 16 on, who creates a role is a member that cannot use it.
                IF NOT pg_has_role(current_user, role, CASE
                        WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN
                    EXECUTE format('GRANT %I TO CURRENT_USER', role);
                END IF;
            EXCEPTION
                WHEN insufficient_privilege THEN NULL;  -- the check after the migration names the statement
            END;
        END LOOP;
    END $$;
    GRANT USAGE ON SCHEMA public TO iotistica_api, iotistica_worker;

    -- `api` sees only the tenant that its transaction sets, `worker` sees every tenant.
    CREATE PROCEDURE confine_to_tenant(confined regclass) LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', confined);
        EXECUTE format('CREATE POLICY own_tenant ON %s TO iotistica_api
            USING (tenant_id = current_setting(''iotistica.tenant'', true))', confined);
        EXECUTE format('CREATE POLICY every_tenant ON %s TO iotistica_worker USING (true)', confined);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO iotistica_worker', confined);
    END $$;
    REVOKE ALL ON PROCEDURE confine_to_tenant FROM PUBLIC;
    """)
    for table in SCOPED:
        op.execute(f"CALL confine_to_tenant('{table}')")
    op.execute("""
    GRANT SELECT ON tenants, series, readings_ledger, readings_ledger_totals, rejections, rejections_totals,
        payloads_ledger, payloads_ledger_totals, readings TO iotistica_api;
    GRANT SELECT, INSERT, UPDATE, DELETE ON users, agents, broker_accounts TO iotistica_api;
    GRANT SELECT, INSERT, DELETE ON readings TO iotistica_worker;
    GRANT SELECT ON alembic_version TO iotistica_api, iotistica_worker;

    -- Readings have no tenant column. The view joins `agents`, so a role sees only the readings of its tenant.
    DROP VIEW readings_with_series;
    CREATE VIEW readings_with_series WITH (security_invoker = true) AS
    SELECT r.time, r.agent_uuid, r.metric_name, r.value, r.quality, r.unit, r.protocol,
           jsonb_strip_nulls(jsonb_build_object(
               'device_name', s.device_name, 'device_uuid', s.device_uuid,
               'endpoint_uuid', s.endpoint_uuid, 'metric', s.metric)) || coalesce(r.extra, '{}') AS extra,
           r.anomaly_score, r.anomaly_threshold
    FROM agents a JOIN readings r USING (agent_uuid) LEFT JOIN series s USING (agent_uuid, metric_name);
    GRANT SELECT ON readings_with_series TO iotistica_api, iotistica_worker;

    -- Only the table's owner can create partitions, so the worker calls this function. CREATE, then ATTACH, because
    -- PARTITION OF would lock the parent against every reader and writer.
    CREATE FUNCTION make_readings_partition(day date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        name text := 'readings_p' || to_char(day, 'YYYYMMDD');
    BEGIN
        -- Two workers can need the same day; the lock is held until the commit, so one of them waits.
        PERFORM pg_advisory_xact_lock(67350);
        IF to_regclass('public.' || name) IS NOT NULL THEN
            RETURN false;
        END IF;
        EXECUTE format('CREATE TABLE %I (LIKE readings INCLUDING DEFAULTS INCLUDING INDEXES)', name);
        EXECUTE format('ALTER TABLE readings ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name,
                       to_char(day, 'YYYY-MM-DD') || 'Z', to_char(day + 1, 'YYYY-MM-DD') || 'Z');
        RETURN true;
    END $$;

    CREATE FUNCTION drop_readings_partition(day date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        EXECUTE format('DROP TABLE IF EXISTS %I', 'readings_p' || to_char(day, 'YYYYMMDD'));
    END $$;

    REVOKE ALL ON FUNCTION make_readings_partition, drop_readings_partition FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION make_readings_partition, drop_readings_partition TO iotistica_worker;
    """)
