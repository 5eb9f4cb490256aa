"""Readings in daily partitions, the series they belong to, and the two ledgers."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    -- lz4 and fillfactor keep their defaults, since rows are small and never updated.
    CREATE TABLE readings (
        time              timestamptz NOT NULL,
        agent_uuid        uuid NOT NULL,
        metric_name       text NOT NULL COLLATE "C",
        value             double precision,
        quality           text DEFAULT 'good',
        unit              text,
        protocol          text NOT NULL,
        extra             jsonb DEFAULT '{}',
        anomaly_score     double precision,
        anomaly_threshold double precision,
        PRIMARY KEY (agent_uuid, metric_name, time)
    ) PARTITION BY RANGE (time);

    -- The values that all readings of a series share, written when the series is first seen.
    CREATE TABLE series (
        agent_uuid    uuid NOT NULL REFERENCES agents ON DELETE CASCADE,
        metric_name   text NOT NULL COLLATE "C",
        tenant_id     text NOT NULL REFERENCES tenants,
        metric        text NOT NULL,
        device_name   text,
        device_uuid   uuid,
        endpoint_uuid uuid,
        unit          text,
        protocol      text NOT NULL,
        first_seen    timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (agent_uuid, metric_name)
    );

    CREATE VIEW readings_with_series AS
    SELECT r.time, r.agent_uuid, r.metric_name, r.value, r.quality, r.unit, r.protocol,
           jsonb_strip_nulls(jsonb_build_object(
               'device_name', s.device_name, 'device_uuid', s.device_uuid,
               'endpoint_uuid', s.endpoint_uuid, 'metric', s.metric)) || coalesce(r.extra, '{}') AS extra,
           r.anomaly_score, r.anomaly_threshold
    FROM readings r LEFT JOIN series s USING (agent_uuid, metric_name);

    -- One row per batch and agent, written in its transaction. found = stored + duplicate + rejected.
    CREATE TABLE readings_ledger (
        id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
        at         timestamptz NOT NULL DEFAULT now(),
        tenant_id  text NOT NULL,
        agent_uuid uuid NOT NULL,
        found      integer NOT NULL,
        stored     integer NOT NULL,
        duplicate  integer NOT NULL,
        rejected   integer NOT NULL,
        conflict   integer NOT NULL DEFAULT 0,
        first_time timestamptz,
        last_time  timestamptz
    );

    CREATE TABLE readings_ledger_totals (
        tenant_id  text NOT NULL,
        agent_uuid uuid NOT NULL,
        found      bigint NOT NULL,
        stored     bigint NOT NULL,
        duplicate  bigint NOT NULL,
        rejected   bigint NOT NULL,
        conflict   bigint NOT NULL,
        first_time timestamptz,
        last_time  timestamptz,
        last_at    timestamptz NOT NULL,
        PRIMARY KEY (tenant_id, agent_uuid)
    );

    CREATE TABLE rejections (
        id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at         timestamptz NOT NULL DEFAULT now(),
        tenant_id  text NOT NULL,
        agent_uuid uuid NOT NULL,
        reason     text NOT NULL,
        readings   integer NOT NULL
    );

    CREATE TABLE rejections_totals (
        tenant_id  text NOT NULL,
        agent_uuid uuid NOT NULL,
        reason     text NOT NULL,
        readings   bigint NOT NULL,
        last_at    timestamptz NOT NULL,
        PRIMARY KEY (tenant_id, agent_uuid, reason)
    );

    -- One row for the messages of a stream entry that one transaction stored, with the number of the first and
    -- their count. So a message that is delivered twice is stored and counted once.
    CREATE TABLE payloads_ledger (
        tenant_id text NOT NULL,
        entry     text NOT NULL,
        first     integer NOT NULL,
        at        timestamptz NOT NULL DEFAULT now(),
        processed integer NOT NULL,
        dead      integer NOT NULL,
        PRIMARY KEY (tenant_id, entry, first)
    );

    CREATE TABLE payloads_ledger_totals (
        tenant_id text PRIMARY KEY,
        processed bigint NOT NULL,
        dead      bigint NOT NULL
    );
    """)
