"""Erasures: which of an agent's readings must be deleted, from every table that holds them."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    -- Readings older than `before`, either of all series of the agent, of one device, or of one metric.
    CREATE TABLE erasures (
        erasure_id  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        tenant_id   text NOT NULL REFERENCES tenants,
        agent_uuid  uuid NOT NULL,
        device_name text,
        metric_name text,
        before      timestamptz NOT NULL,
        asked_at    timestamptz NOT NULL DEFAULT now(),
        reached     timestamptz NOT NULL DEFAULT '1900-01-01T00:00Z',
        readings    bigint NOT NULL DEFAULT 0,
        done_at     timestamptz,
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );
    CREATE INDEX erasures_tenant ON erasures (tenant_id, asked_at);
    CALL confine_to_tenant('erasures');
    GRANT SELECT, INSERT ON erasures TO iotistica_api;

    -- The time up to which a tenant's expired readings are deleted.
    ALTER TABLE tenants ADD erased_until timestamptz;

    -- Only the owner can delete TimescaleDB's rollups, from the tables behind the views.
    CREATE FUNCTION erase_rollups(agent uuid, names text[], until timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        rollup text;
        store text;
    BEGIN
        FOREACH rollup IN ARRAY ARRAY['readings_1m', 'readings_1h', 'readings_daily'] LOOP
            store := rollup;
            IF (SELECT engine FROM rollup_progress) = 'timescaledb' THEN
                SELECT format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name)
                INTO store FROM timescaledb_information.continuous_aggregates WHERE view_name = rollup;
            END IF;
            EXECUTE format('DELETE FROM %s WHERE agent_uuid = $1 AND metric_name = ANY($2) AND bucket < $3', store)
            USING agent, names, until;
        END LOOP;
    END $$;

    -- Before readings are dropped to free disk space, the refresh policies are limited to later days. Otherwise
    -- they would find no readings and delete the rollups of these days.
    CREATE FUNCTION drop_chunks_before(day date) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        job record;
        reach interval := now() - (day + 1)::timestamp AT TIME ZONE 'UTC';
        dropped integer;
    BEGIN
        IF (SELECT engine FROM rollup_progress) <> 'timescaledb' THEN
            RETURN 0;
        END IF;
        FOR job IN SELECT job_id, config FROM timescaledb_information.jobs
                   WHERE proc_name = 'policy_refresh_continuous_aggregate' LOOP
            IF (job.config->>'start_offset')::interval > reach THEN
                PERFORM alter_job(job.job_id,
                                  config => jsonb_set(job.config, '{start_offset}', to_jsonb(reach::text)));
            END IF;
        END LOOP;
        SELECT count(*) INTO dropped
        FROM drop_chunks('readings', older_than => day::timestamp AT TIME ZONE 'UTC');
        PERFORM drop_chunks('readings_1m', older_than => day::timestamp AT TIME ZONE 'UTC');
        RETURN dropped;
    END $$;
    REVOKE ALL ON FUNCTION erase_rollups, drop_chunks_before FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION erase_rollups, drop_chunks_before TO iotistica_worker;
    """)
