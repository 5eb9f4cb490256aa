"""Jobs: templates, executions, and the progress of each agent."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    CREATE TABLE job_templates (
        template_id  uuid PRIMARY KEY,
        tenant_id    text NOT NULL REFERENCES tenants ON DELETE CASCADE,
        name         text NOT NULL,
        description  text,
        category     text,
        extends      uuid REFERENCES job_templates,
        job_document jsonb NOT NULL,
        is_active    boolean NOT NULL,
        author       jsonb NOT NULL,
        created_at   timestamptz NOT NULL DEFAULT now(),
        updated_at   timestamptz NOT NULL DEFAULT now(),
        UNIQUE (tenant_id, name)
    );
    CREATE INDEX job_templates_extends ON job_templates (extends) WHERE extends IS NOT NULL;

    CREATE TABLE job_executions (
        job_id                uuid PRIMARY KEY,
        tenant_id             text NOT NULL REFERENCES tenants ON DELETE CASCADE,
        job_name              text NOT NULL,
        template_id           uuid,
        job_document          jsonb NOT NULL,
        target                jsonb NOT NULL,
        total                 integer NOT NULL,
        timeout_minutes       integer NOT NULL,
        start_timeout_minutes integer NOT NULL,
        retries               integer NOT NULL,
        retry_delay_seconds   integer NOT NULL,
        policy                jsonb NOT NULL,
        author                jsonb NOT NULL,
        status                text NOT NULL,
        reason                text,
        scheduled_at          timestamptz,
        queued_at             timestamptz NOT NULL,
        started_at            timestamptz,
        completed_at          timestamptz,
        -- Written only by the process that advances rollouts.
        credit                double precision NOT NULL DEFAULT 1,
        paced_at              timestamptz,
        counts                jsonb NOT NULL,
        is_settled            boolean NOT NULL DEFAULT false
    );
    CREATE INDEX job_executions_list ON job_executions (tenant_id, queued_at, job_id);
    CREATE INDEX job_executions_unsettled ON job_executions (queued_at) WHERE NOT is_settled;

    CREATE TABLE agent_job_status (
        job_id           uuid NOT NULL REFERENCES job_executions ON DELETE CASCADE,
        agent_uuid       uuid NOT NULL,
        tenant_id        text NOT NULL,
        status           text NOT NULL,
        is_canary        boolean NOT NULL,
        position         integer NOT NULL,
        execution_number integer NOT NULL DEFAULT 1,
        queued_at        timestamptz NOT NULL,
        released_at      timestamptz,
        notified_at      timestamptz,
        started_at       timestamptz,
        last_updated_at  timestamptz NOT NULL,
        completed_at     timestamptz,
        exit_code        integer,
        stdout           text,
        stderr           text,
        reason           text,
        executed_steps   integer,
        failed_step      text,
        status_details   jsonb,
        PRIMARY KEY (job_id, agent_uuid),
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );
    CREATE INDEX agent_job_status_agent ON agent_job_status (tenant_id, agent_uuid, queued_at, job_id);
    CREATE INDEX agent_job_status_count ON agent_job_status (job_id, status, is_canary);
    CREATE INDEX agent_job_status_waiting ON agent_job_status (job_id, position)
        WHERE status = 'QUEUED' AND released_at IS NULL;
    CREATE INDEX agent_job_status_next ON agent_job_status (agent_uuid, released_at)
        WHERE status = 'QUEUED' AND released_at IS NOT NULL;
    CREATE INDEX agent_job_status_untold ON agent_job_status (released_at)
        WHERE status = 'QUEUED' AND released_at IS NOT NULL AND notified_at IS NULL;
    CREATE INDEX agent_job_status_told ON agent_job_status (notified_at)
        WHERE status = 'QUEUED' AND notified_at IS NOT NULL;
    CREATE INDEX agent_job_status_running ON agent_job_status (started_at) WHERE status = 'IN_PROGRESS';

    CALL confine_to_tenant('job_templates');
    CALL confine_to_tenant('job_executions');
    CALL confine_to_tenant('agent_job_status');
    GRANT SELECT, INSERT, UPDATE, DELETE ON job_templates, job_executions, agent_job_status TO iotistica_api;
    """)
