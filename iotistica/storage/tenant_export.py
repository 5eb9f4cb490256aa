"""Export of all data of a tenant as CSV files, and the removal of a tenant."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from psycopg import sql

from iotistica.domain.ids import TenantId
from iotistica.storage.postgres import Tx
from iotistica.storage.redis import Redis, guarded, tenant_pattern

# Secrets are not exported: hashes, digests and password lines are of use only to a thief.
EXPORTS: Final = {
    "tenant": "SELECT * FROM tenants WHERE tenant_id = {tenant}",
    "users": "SELECT user_id, email, username, full_name, role, active, created_at FROM users"
    " WHERE tenant_id = {tenant} ORDER BY user_id",
    "api_keys": "SELECT key_id, name, hint, role, scopes, created_at, expires_at, last_used_at, revoked_at"
    " FROM api_keys WHERE tenant_id = {tenant} ORDER BY key_id",
    "provisioning_keys": "SELECT key_id, fleet_uuid, hint, description, max_uses, uses, created_at, expires_at,"
    " last_used_at, revoked_at FROM provisioning_keys WHERE tenant_id = {tenant} ORDER BY key_id",
    "fleets": "SELECT * FROM fleets WHERE tenant_id = {tenant} ORDER BY fleet_uuid",
    "agents": "SELECT * FROM agents WHERE tenant_id = {tenant} ORDER BY agent_uuid",
    "mqtt_users": "SELECT name, username, rules, enabled, created_at FROM broker_accounts"
    " WHERE tenant_id = {tenant} AND name IS NOT NULL ORDER BY name",
    "series": "SELECT * FROM series WHERE tenant_id = {tenant} ORDER BY agent_uuid, metric_name",
    "readings": "SELECT r.* FROM agents a JOIN readings r USING (agent_uuid) WHERE a.tenant_id = {tenant}",
    **{
        name: f"SELECT r.* FROM agents a JOIN {name} r USING (agent_uuid) WHERE a.tenant_id = {{tenant}}"
        for name in ("readings_1m", "readings_1h", "readings_daily")
    },
    "states": "SELECT agent_uuid, state, lively, reported_at FROM agent_states"
    " WHERE tenant_id = {tenant} ORDER BY agent_uuid",
    "timeline": "SELECT * FROM agent_timeline WHERE tenant_id = {tenant} ORDER BY id",
    "targets": "SELECT subject, latest, deployed, deployed_at, deployed_by FROM targets"
    " WHERE tenant_id = {tenant} ORDER BY subject",
    "target_versions": "SELECT subject, version, apps, config, changes, note, restores, author, at"
    " FROM target_versions WHERE tenant_id = {tenant} ORDER BY subject, version",
    "logs": "SELECT time, agent_uuid, service, level, is_system, is_stderr, message, meta FROM agent_logs"
    " WHERE tenant_id = {tenant}",
    "updates": "SELECT * FROM agent_updates WHERE tenant_id = {tenant} ORDER BY issued_at",
    "job_templates": "SELECT * FROM job_templates WHERE tenant_id = {tenant} ORDER BY template_id",
    "job_executions": "SELECT * FROM job_executions WHERE tenant_id = {tenant} ORDER BY queued_at",
    "agent_job_status": "SELECT * FROM agent_job_status WHERE tenant_id = {tenant} ORDER BY job_id, agent_uuid",
    "presence": "SELECT agent_uuid, status, since, data_at, heard_at FROM agent_presence"
    " WHERE tenant_id = {tenant} ORDER BY agent_uuid",
    "tags": "SELECT agent_uuid, key, value FROM agent_tags WHERE tenant_id = {tenant} ORDER BY agent_uuid, key",
    "tag_definitions": "SELECT * FROM tag_definitions WHERE tenant_id = {tenant} ORDER BY key",
    "erasures": "SELECT * FROM erasures WHERE tenant_id = {tenant} ORDER BY asked_at",
    "ledger": "SELECT agent_uuid, sum(found) AS found, sum(stored) AS stored, sum(duplicate) AS duplicate,"
    " sum(rejected) AS rejected, sum(conflict) AS conflict FROM ("
    "SELECT agent_uuid, found, stored, duplicate, rejected, conflict FROM readings_ledger"
    " WHERE tenant_id = {tenant} UNION ALL"
    " SELECT agent_uuid, found, stored, duplicate, rejected, conflict FROM readings_ledger_totals"
    " WHERE tenant_id = {tenant}) rows GROUP BY agent_uuid ORDER BY agent_uuid",
    "rejections": "SELECT agent_uuid, reason, sum(readings) AS readings FROM ("
    "SELECT agent_uuid, reason, readings FROM rejections WHERE tenant_id = {tenant}"
    " UNION ALL SELECT agent_uuid, reason, readings FROM rejections_totals WHERE tenant_id = {tenant}) rows"
    " GROUP BY agent_uuid, reason ORDER BY agent_uuid, reason",
    "payloads": "SELECT sum(processed) AS processed, sum(dead) AS dead FROM ("
    "SELECT processed, dead FROM payloads_ledger WHERE tenant_id = {tenant}"
    " UNION ALL SELECT processed, dead FROM payloads_ledger_totals WHERE tenant_id = {tenant}) rows",
    "sequence_runs": "SELECT agent_uuid, first_ms, last_ms, first, last FROM sequence_runs"
    " WHERE tenant_id = {tenant} ORDER BY agent_uuid, first_ms",
    "dictionaries": "SELECT agent_uuid, version, content, changed_at FROM dictionaries"
    " WHERE tenant_id = {tenant} ORDER BY agent_uuid, version",
    "events": "SELECT * FROM events WHERE tenant_id = {tenant} ORDER BY id",
    "alert_rules": "SELECT * FROM alert_rules WHERE tenant_id = {tenant} ORDER BY rule_id",
    "incidents": "SELECT * FROM incidents WHERE tenant_id = {tenant} ORDER BY opened_at, incident_id",
    "incident_members": "SELECT * FROM incident_members WHERE tenant_id = {tenant} ORDER BY id",
    "incident_history": "SELECT * FROM incident_history WHERE tenant_id = {tenant} ORDER BY id",
    "silences": "SELECT * FROM silences WHERE tenant_id = {tenant} ORDER BY silence_id",
    "dashboard_layouts": "SELECT * FROM dashboard_layouts WHERE tenant_id = {tenant} ORDER BY layout_id",
    "audit_events": "SELECT * FROM audit_events WHERE tenant_id = {tenant} ORDER BY id",
}
UNBOUNDED: Final = "SET LOCAL statement_timeout = 0"


async def export_tenant(tx: Tx, tenant: TenantId, folder: Path, on_progress: Callable[[str, int], None]) -> None:
    """Write one CSV file per table; `on_progress` is called with each table's name and bytes.

    The transaction must be one with `snapshot`, so that the files are consistent with each other.
    """
    await tx.execute(UNBOUNDED)
    for name, select in EXPORTS.items():
        query = sql.SQL("COPY (" + select + ") TO STDOUT (FORMAT csv, HEADER)").format(tenant=sql.Literal(tenant))
        written = 0
        with (folder / f"{name}.csv").open("wb") as file:
            async with tx.cursor() as cursor, cursor.copy(query) as rows:
                async for part in rows:
                    written += file.write(part)
        on_progress(name, written)


# Ordered so that no row refers to a deleted one.
DELETES: Final = (
    "SELECT erase_rollups(a.agent_uuid, array_agg(s.metric_name), '2500-01-01Z') FROM agents a"
    " JOIN series s USING (agent_uuid) WHERE a.tenant_id = %(tenant)s GROUP BY a.agent_uuid",
    "DELETE FROM rollup_marks m USING agents a WHERE a.agent_uuid = m.agent_uuid AND a.tenant_id = %(tenant)s",
    "DELETE FROM readings r USING agents a WHERE a.agent_uuid = r.agent_uuid AND a.tenant_id = %(tenant)s",
    *(
        f"DELETE FROM {table} WHERE tenant_id = %(tenant)s"
        for table in (
            "agent_logs",
            "erasures",
            "series",
            "readings_ledger",
            "readings_ledger_totals",
            "rejections",
            "rejections_totals",
            "payloads_ledger",
            "payloads_ledger_totals",
            "sequence_marks",
            "sequence_runs",
            "dictionaries",
            "broker_accounts",
            "agent_challenges",
            "agent_keys",
            "agents",
            "tag_definitions",
            "provisioning_keys",
            "fleets",
            "dashboard_layouts",
            "api_keys",
            "links",
            "sessions",
            "users",
            "audit_events",
            "tenants",
        )
    ),
)
ALLOW_DELETE: Final = "SET LOCAL iotistica.deletes_tenant = 'yes'"


async def delete_tenant(tx: Tx, tenant: TenantId) -> None:
    """Delete a tenant with all its data, the audit log included; requires the owner of the tables."""
    await tx.execute(UNBOUNDED)
    await tx.execute(ALLOW_DELETE)
    for statement in DELETES:
        await tx.execute(statement, {"tenant": tenant})


async def delete_redis_keys(redis: Redis, tenant: TenantId) -> None:
    """Delete all Redis keys of a tenant."""
    with guarded(redis):
        async for key in redis.scan_iter(match=tenant_pattern(tenant), count=1000):
            await redis.delete(key)
