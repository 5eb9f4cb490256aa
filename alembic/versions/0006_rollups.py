"""Rollups by minute, hour and day, their progress, and the hours that must be computed again."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# The tables have the names of the continuous aggregates that replace them with TimescaleDB.
ROLLUP = """
    CREATE TABLE {name} (
        bucket          timestamptz NOT NULL,
        agent_uuid      uuid NOT NULL,
        metric_name     text NOT NULL COLLATE "C",
        count           bigint NOT NULL,
        good_count      bigint NOT NULL,
        uncertain_count bigint NOT NULL,
        bad_count       bigint NOT NULL,
        stale_count     bigint NOT NULL,
        unknown_count   bigint NOT NULL,
        n               bigint NOT NULL,
        sum             double precision,
        sum_sq          double precision,
        min             double precision,
        max             double precision,
        first           double precision,
        first_time      timestamptz,
        last            double precision,
        last_time       timestamptz,
        PRIMARY KEY (agent_uuid, metric_name, bucket)
    ) {partitioned};
    GRANT SELECT ON {name} TO iotistica_api;
    GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO iotistica_worker;
"""


def upgrade() -> None:
    by_range = "PARTITION BY RANGE (bucket)"
    for name, partitioned in (("readings_1m", by_range), ("readings_1h", by_range), ("readings_daily", "")):
        op.execute(ROLLUP.format(name=name, partitioned=partitioned))
    op.execute("""
    ALTER TABLE tenants ADD retention_days integer CHECK (retention_days BETWEEN 1 AND 36500);

    -- For the rollups, which read all series of a minute. A B-tree would slow inserts by a tenth, BRIN does not.
    CREATE INDEX readings_time ON readings USING brin (time) WITH (pages_per_range = 16, autosummarize = on);

    -- Readings before `closed_until` are marked when they are stored; rollups are complete before `rolled_until`.
    -- Data older than `*_since` was dropped. TimescaleDB tracks this itself, so with it no reading is ever marked,
    -- and rollups are complete to the end of time.
    CREATE TABLE rollup_progress (
        one           boolean PRIMARY KEY DEFAULT true CHECK (one),
        engine        text NOT NULL CHECK (engine IN ('plain', 'timescaledb')),
        closed_until  timestamptz NOT NULL,
        rolled_until  timestamptz NOT NULL CHECK (rolled_until <= closed_until OR engine <> 'plain'),
        raw_since     timestamptz NOT NULL DEFAULT '1900-01-01T00:00Z',
        minutes_since timestamptz NOT NULL DEFAULT '1900-01-01T00:00Z',
        hours_since   timestamptz NOT NULL DEFAULT '1900-01-01T00:00Z',
        compress_days integer
    );
    INSERT INTO rollup_progress (engine, closed_until, rolled_until)
    SELECT 'plain', start, start FROM (
        SELECT coalesce(min(to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC'),
                        date_trunc('minute', now()) - interval '2 minutes') AS start
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'readings'::regclass
    ) oldest;

    -- Appended when late readings are stored; the rollup job deletes exactly the marks that it read. Never use
    -- ON CONFLICT - a new mark that gives way to an existing one is lost if that one is processed meanwhile.
    CREATE TABLE rollup_marks (
        agent_uuid uuid NOT NULL,
        hour       timestamptz NOT NULL
    );
    CREATE INDEX rollup_marks_hour ON rollup_marks (hour, agent_uuid);

    ALTER TABLE rollup_progress ENABLE ROW LEVEL SECURITY;
    ALTER TABLE rollup_marks ENABLE ROW LEVEL SECURITY;
    CREATE POLICY everybody ON rollup_progress TO iotistica_api, iotistica_worker USING (true);
    CREATE POLICY every_tenant ON rollup_marks TO iotistica_worker USING (true);
    CREATE POLICY own_tenant ON rollup_marks TO iotistica_api
        USING (EXISTS (SELECT FROM agents a WHERE a.agent_uuid = rollup_marks.agent_uuid));
    GRANT SELECT ON rollup_progress, rollup_marks TO iotistica_api;
    GRANT SELECT, UPDATE ON rollup_progress TO iotistica_worker;
    GRANT SELECT, INSERT, DELETE ON rollup_marks TO iotistica_worker;

    DROP FUNCTION make_readings_partition;
    DROP FUNCTION drop_readings_partition;

    -- Only the table's owner can create partitions, so the worker calls this function. CREATE, then ATTACH, because
    -- PARTITION OF would lock the parent against every reader and writer.
    CREATE FUNCTION make_partition(parent text, first date, next date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DECLARE
        name text := parent || '_p' || to_char(first, 'YYYYMMDD');
    BEGIN
        IF parent NOT IN ('readings', 'readings_1m', 'readings_1h') THEN
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

    CREATE FUNCTION drop_partition(parent text, first date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        IF parent NOT IN ('readings', 'readings_1m', 'readings_1h') THEN
            RAISE invalid_parameter_value USING MESSAGE = parent || ' has no partitions';
        END IF;
        EXECUTE format('DROP TABLE IF EXISTS %I', parent || '_p' || to_char(first, 'YYYYMMDD'));
    END $$;

    REVOKE ALL ON FUNCTION make_partition, drop_partition FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION make_partition, drop_partition TO iotistica_worker;
    """)
