"""Late hours on TimescaleDB: when each was seen by the task that waits for its refresh, and how far days reach."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    ALTER TABLE rollup_marks ADD seen_at timestamptz;
    GRANT UPDATE (seen_at) ON rollup_marks TO iotistica_worker;

    -- The time before which every day is rolled up. The catalog of TimescaleDB is read as the tables' owner.
    CREATE FUNCTION days_rolled_until() RETURNS timestamptz
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        until timestamptz;
    BEGIN
        IF (SELECT engine FROM rollup_progress) <> 'timescaledb' THEN
            RETURN (SELECT rolled_until FROM rollup_progress);
        END IF;
        EXECUTE $sql$
            SELECT _timescaledb_functions.to_timestamp(_timescaledb_functions.cagg_watermark(h.id))
            FROM timescaledb_information.continuous_aggregates c JOIN _timescaledb_catalog.hypertable h
                ON h.schema_name = c.materialization_hypertable_schema
               AND h.table_name = c.materialization_hypertable_name
            WHERE c.view_name = 'readings_daily' $sql$ INTO until;
        RETURN greatest(coalesce(until, '1900-01-01Z'), '1900-01-01Z');
    END $$;
    REVOKE ALL ON FUNCTION days_rolled_until FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION days_rolled_until TO iotistica_worker;
    """)
