"""Events of agents, alert rules with the state of what they watch, incidents, and silences."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

CONFINED = (
    "events",
    "alert_rules",
    "alert_states",
    "detector_states",
    "incidents",
    "incident_members",
    "incident_history",
    "silences",
)


def upgrade() -> None:
    op.execute("""
    ALTER TABLE tenants
        ADD quota_alert_rules integer CHECK (quota_alert_rules >= 0),
        ADD quota_alert_series integer CHECK (quota_alert_series >= 0),
        ADD quota_alert_messages_hour integer CHECK (quota_alert_messages_hour >= 0);

    -- When the rules were applied last: what is current is told by that, not by how long nobody applied them.
    ALTER TABLE presence_watch ADD rules_judged_at timestamptz;

    CREATE TABLE events (
        id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        tenant_id        text NOT NULL REFERENCES tenants ON DELETE CASCADE,
        agent_uuid       uuid NOT NULL,
        message_id       text NOT NULL,
        type             text NOT NULL,
        time             timestamptz NOT NULL,
        received_at      timestamptz NOT NULL,
        severity         text NOT NULL,
        text             text,
        metric_name      text COLLATE "C",
        device_name      text,
        device_uuid      uuid,
        fingerprint      text,
        window_start     timestamptz,
        window_end       timestamptz,
        value            double precision,
        score            double precision,
        confidence       double precision,
        expected_low     double precision,
        expected_high    double precision,
        baseline         jsonb,
        cooldown_seconds double precision,
        is_suppressed    boolean NOT NULL,
        content          jsonb NOT NULL,
        UNIQUE (tenant_id, agent_uuid, message_id),
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );
    CREATE INDEX events_list ON events (tenant_id, time, id);
    CREATE INDEX events_agent ON events (tenant_id, agent_uuid, time, id);
    CREATE INDEX events_age ON events (received_at);

    CREATE TABLE alert_rules (
        rule_id    uuid PRIMARY KEY,
        tenant_id  text NOT NULL REFERENCES tenants ON DELETE CASCADE,
        name       text NOT NULL,
        definition jsonb NOT NULL,
        severity   text NOT NULL,
        is_enabled boolean NOT NULL,
        -- What a rule remembers belongs to one generation: a rule that is enabled again, or is about something
        -- else, begins anew.
        generation integer NOT NULL DEFAULT 1,
        author     jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (tenant_id, name)
    );

    -- For each agent, how far its series were watched and what each rule remembers of them, packed into one value:
    -- a row per series and rule would cost more than storing the readings.
    CREATE TABLE alert_states (
        tenant_id  text NOT NULL REFERENCES tenants ON DELETE CASCADE,
        -- None for what concerns the tenant as a whole.
        agent_uuid uuid,
        packed     bytea NOT NULL,
        UNIQUE NULLS NOT DISTINCT (tenant_id, agent_uuid),
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );
    -- What the learned detectors of an agent's series know; saved less often, since it can be learned again.
    CREATE TABLE detector_states (
        agent_uuid uuid PRIMARY KEY,
        tenant_id  text NOT NULL,
        packed     bytea NOT NULL,
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );
    ALTER TABLE detector_states ALTER packed SET STORAGE EXTERNAL;  -- numbers that cannot be compressed
    -- Series that were seen first since a moment, for the rules that match them.
    CREATE INDEX series_first_seen ON series (first_seen);

    CREATE INDEX agent_job_status_failed ON agent_job_status (completed_at)
        WHERE status IN ('FAILED', 'TIMED_OUT', 'REJECTED');

    CREATE TABLE incidents (
        incident_id     uuid PRIMARY KEY,
        tenant_id       text NOT NULL REFERENCES tenants ON DELETE CASCADE,
        -- The id of a rule, or the fingerprint of an agent's own events.
        cause           text NOT NULL,
        rule_id         uuid REFERENCES alert_rules ON DELETE SET NULL,
        is_of_rule      boolean NOT NULL,
        title           text NOT NULL,
        severity        text NOT NULL,
        status          text NOT NULL CHECK (status IN ('open', 'acknowledged', 'resolved')),
        opened_at       timestamptz NOT NULL,
        grown_at        timestamptz NOT NULL,
        acknowledged_at timestamptz,
        acknowledged_by jsonb,
        resolved_at     timestamptz,
        resolved_by     jsonb,
        members         integer NOT NULL DEFAULT 0,
        active_members  integer NOT NULL DEFAULT 0
    );
    CREATE INDEX incidents_list ON incidents (tenant_id, opened_at, incident_id);
    CREATE INDEX incidents_age ON incidents (resolved_at) WHERE status = 'resolved';
    CREATE INDEX incidents_open ON incidents (tenant_id, cause, grown_at) WHERE status <> 'resolved';

    -- What an incident is about: a series, an agent, or the tenant as a whole. Each cause has at most one open
    -- member for each subject, whatever processes write at the same time.
    CREATE TABLE incident_members (
        id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        incident_id uuid NOT NULL REFERENCES incidents ON DELETE CASCADE,
        tenant_id   text NOT NULL,
        cause       text NOT NULL,
        agent_uuid  uuid,
        metric_name text COLLATE "C" NOT NULL,
        opened_at   timestamptz NOT NULL,
        since       timestamptz NOT NULL,
        value       double precision,
        details     jsonb NOT NULL,
        seen_at     timestamptz NOT NULL,
        times       integer NOT NULL DEFAULT 1,
        ends_at     timestamptz,
        ended_at    timestamptz,
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );
    CREATE UNIQUE INDEX incident_members_open ON incident_members (tenant_id, cause, agent_uuid, metric_name)
        NULLS NOT DISTINCT WHERE ended_at IS NULL;
    CREATE INDEX incident_members_list ON incident_members (incident_id, id);
    CREATE INDEX incident_members_agent ON incident_members (tenant_id, agent_uuid, opened_at);
    CREATE INDEX incident_members_due ON incident_members (ends_at) WHERE ended_at IS NULL AND ends_at IS NOT NULL;

    CREATE TABLE incident_history (
        id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        incident_id uuid NOT NULL REFERENCES incidents ON DELETE CASCADE,
        tenant_id   text NOT NULL,
        at          timestamptz NOT NULL,
        kind        text NOT NULL,
        author      jsonb,
        note        text,
        details     jsonb NOT NULL DEFAULT '{}'
    );
    CREATE INDEX incident_history_list ON incident_history (incident_id, id);

    CREATE TABLE silences (
        silence_id uuid PRIMARY KEY,
        tenant_id  text NOT NULL REFERENCES tenants ON DELETE CASCADE,
        matches    jsonb NOT NULL,
        starts_at  timestamptz NOT NULL,
        ends_at    timestamptz NOT NULL CHECK (ends_at > starts_at),
        reason     text NOT NULL,
        author     jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX silences_list ON silences (tenant_id, ends_at, silence_id);
    """)
    for table in CONFINED:
        op.execute(f"CALL confine_to_tenant('{table}')")
    op.execute("""
    -- A learned detector writes its score to the reading that is unusual. Not for single columns: on a table whose
    -- old days are compressed, TimescaleDB cannot grant that.
    GRANT UPDATE ON readings TO iotistica_worker;
    GRANT SELECT ON events, incidents, incident_members, incident_history, alert_states, detector_states
        TO iotistica_api;
    GRANT UPDATE ON incidents, incident_members TO iotistica_api;
    GRANT INSERT ON incident_history TO iotistica_api;
    GRANT SELECT, INSERT, UPDATE, DELETE ON alert_rules, silences TO iotistica_api;
    """)
