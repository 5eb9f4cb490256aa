"""Targets of notifications, escalation policies, and the outbox of notices with their attempts."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    CREATE TABLE notification_targets (
        target_id  uuid PRIMARY KEY,
        tenant_id  text NOT NULL REFERENCES tenants ON DELETE CASCADE,
        name       text NOT NULL,
        is_enabled boolean NOT NULL,
        kind       text NOT NULL,
        -- The definition as JSON, encrypted: addresses and headers can contain secrets.
        sealed     bytea NOT NULL,
        author     jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (tenant_id, name)
    );
    CREATE TABLE escalation_policies (
        policy_id  uuid PRIMARY KEY,
        tenant_id  text NOT NULL REFERENCES tenants ON DELETE CASCADE,
        name       text NOT NULL,
        steps      jsonb NOT NULL,
        -- The policy that continues after the last step.
        next_id    uuid REFERENCES escalation_policies,
        author     jsonb NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (tenant_id, name)
    );

    -- When the targets were told that it was opened and resolved, and the escalation steps that were taken.
    ALTER TABLE incidents
        ADD labels           jsonb NOT NULL DEFAULT '{}',
        -- Whether it was opened, has grown or become worse since its targets were last decided, and when to look at
        -- it again because of a silence.
        ADD needs_telling    boolean NOT NULL DEFAULT true,
        ADD look_again_at    timestamptz,
        ADD told_at          timestamptz,
        ADD end_told_at      timestamptz,
        ADD escalation_steps integer NOT NULL DEFAULT 0,
        ADD escalates_at     timestamptz;
    CREATE INDEX incidents_untold ON incidents ((coalesce(look_again_at, opened_at)))
        WHERE status = 'open' AND needs_telling;
    CREATE INDEX incidents_rule ON incidents (rule_id) WHERE rule_id IS NOT NULL;
    CREATE INDEX incidents_end_untold ON incidents (resolved_at)
        WHERE status = 'resolved' AND told_at IS NOT NULL AND end_told_at IS NULL;
    CREATE INDEX incidents_escalating ON incidents (escalates_at)
        WHERE status = 'open' AND escalates_at IS NOT NULL;

    -- Written in the transaction of what they tell of. A notice keeps its id however often it is tried.
    CREATE TABLE notices (
        id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        notice_id       text NOT NULL UNIQUE,
        tenant_id       text NOT NULL REFERENCES tenants ON DELETE CASCADE,
        incident_id     uuid REFERENCES incidents ON DELETE CASCADE,
        target_id       uuid NOT NULL REFERENCES notification_targets ON DELETE CASCADE,
        kind            text NOT NULL CHECK (kind IN ('opened', 'escalated', 'resolved', 'test')),
        step            integer NOT NULL DEFAULT 0,
        facts           jsonb NOT NULL,
        status          text NOT NULL DEFAULT 'pending'
            CHECK (status IN ('pending', 'delivered', 'dead', 'canceled')),
        created_at      timestamptz NOT NULL,
        due_at          timestamptz NOT NULL,
        -- Until when it is tried; a replay begins anew.
        expires_at      timestamptz NOT NULL,
        give_up_seconds double precision NOT NULL,
        attempts        integer NOT NULL DEFAULT 0,
        last_attempt_at timestamptz,
        last_error      text,
        delivered_at    timestamptz
    );
    CREATE UNIQUE INDEX notices_once ON notices (incident_id, target_id, kind, step) WHERE incident_id IS NOT NULL;
    CREATE INDEX notices_due ON notices (due_at) WHERE status = 'pending';
    CREATE INDEX notices_target ON notices (target_id);
    CREATE INDEX notices_age ON notices (created_at) WHERE status <> 'pending';
    CREATE INDEX notices_list ON notices (tenant_id, created_at, id);
    CREATE INDEX notices_order ON notices (target_id, incident_id, id) WHERE status = 'pending';

    CREATE TABLE notice_attempts (
        notice_id   text NOT NULL REFERENCES notices (notice_id) ON DELETE CASCADE,
        tenant_id   text NOT NULL,
        number      integer NOT NULL,
        at          timestamptz NOT NULL,
        seconds     double precision NOT NULL,
        status_code integer,
        error       text,
        PRIMARY KEY (notice_id, number)
    );

    CALL confine_to_tenant('notification_targets');
    CALL confine_to_tenant('escalation_policies');
    CALL confine_to_tenant('notices');
    CALL confine_to_tenant('notice_attempts');
    GRANT SELECT, INSERT, UPDATE, DELETE ON notification_targets, escalation_policies TO iotistica_api;
    GRANT SELECT, INSERT ON notices TO iotistica_api;
    GRANT UPDATE (status, due_at, expires_at, last_error) ON notices TO iotistica_api;
    GRANT SELECT ON notice_attempts TO iotistica_api;
    """)
