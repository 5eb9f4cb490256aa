"""The outcome of each message of an entry, dictionaries of compacted payloads, and message numbers."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    -- Positions in the entry. A message that is delivered again must keep its outcome, whatever has changed since.
    ALTER TABLE payloads_ledger
        ADD dead_at   integer[] NOT NULL DEFAULT '{}',
        ADD parked_at integer[] NOT NULL DEFAULT '{}';

    CREATE TABLE dictionaries (
        tenant_id  text NOT NULL REFERENCES tenants,
        agent_uuid uuid NOT NULL,
        version    bigint NOT NULL,
        revision   integer NOT NULL,
        content    jsonb NOT NULL,
        changed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (agent_uuid, version),
        FOREIGN KEY (tenant_id, agent_uuid) REFERENCES agents (tenant_id, agent_uuid) ON DELETE CASCADE
    );

    -- Appended while readings are stored; later merged into ranges of consecutive numbers.
    CREATE TABLE sequence_marks (
        tenant_id  text NOT NULL,
        agent_uuid uuid NOT NULL,
        at         timestamptz NOT NULL DEFAULT now(),
        ms         bigint NOT NULL,
        number     bigint NOT NULL
    );

    CREATE TABLE sequence_runs (
        tenant_id  text NOT NULL,
        agent_uuid uuid NOT NULL,
        first_ms   bigint NOT NULL,
        last_ms    bigint NOT NULL,
        first      bigint NOT NULL,
        last       bigint NOT NULL,
        PRIMARY KEY (agent_uuid, first_ms, first)
    );

    CALL confine_to_tenant('dictionaries');
    CALL confine_to_tenant('sequence_marks');
    CALL confine_to_tenant('sequence_runs');
    GRANT SELECT ON dictionaries, sequence_marks, sequence_runs TO iotistica_api;
    """)
