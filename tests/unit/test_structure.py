"""Rules of the house that a machine can check."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
from litestar.handlers import HTTPRouteHandler

import iotistica.storage
from iotistica import settings
from iotistica.api import app
from iotistica.api.http.dependencies import ServerContext
from iotistica.domain.access.permissions import AGENT, BROKER, PERMISSIONS, PUBLIC
from iotistica.domain.agents.broker_connection import BrokerAddress
from iotistica.storage import redis

ROOT = Path(__file__).parents[2]
CODE = sorted((ROOT / "iotistica").rglob("*.py"))

# Statements that name no tenant, and why that is right.
GLOBAL = {
    "agent_keys.FIND": "finds the agent of a key",
    "api_keys.FIND": "finds the integration of a key",
    "agents.TENANTS_OF": "finds the tenant of an agent",
    "broker_accounts.FIND": "finds the account of a user name, for a broker",
    "broker_accounts.LAST_RENDER": "the broker serves all tenants",
    "broker_accounts.DATABASE_NOW": "a clock",
    "broker_accounts.PASSWORD_LINES": "the broker serves all tenants",
    "broker_accounts.RECORD_RENDER": "the broker serves all tenants",
    "broker_accounts.USERS_WITH_RULES": "the broker serves all tenants",
    "erasures.MARK_HOURS": "by an agent of the erasure's tenant",
    "erasures.NEXT_OPEN": "the oldest of every tenant",
    "erasures.ROLLUPS": "by an agent of the erasure's tenant",
    "erasures.LONG_STATEMENTS": "a setting",
    "tenant_export.ALLOW_DELETE": "a setting",
    "tenant_export.SNAPSHOT": "a setting",
    "tenant_export.UNBOUNDED": "a setting",
    "identities.LOCK": "a uuid is one of all tenants",
    "jobs.DELETE_OLD": "by age",
    "ledger.FOLD_READINGS": "folds every tenant's rows, tenant by tenant",
    "ledger.FOLD_REJECTIONS": "folds every tenant's rows, tenant by tenant",
    "ledger.CLOCK_OFFSETS": "every tenant's agents of the last minute",
    "one_time_links.DELETE_EXPIRED": "by age",
    "one_time_links.USE": "finds the tenant of a link",
    "logs.DELETE_BATCHES": "by age",
    "logs.DELETE_SERVICES": "by age",
    "login_failures.ADD": "a name that is tried may be nobody's",
    "login_failures.CLEAR": "a name that is tried may be nobody's",
    "login_failures.FIND": "a name that is tried may be nobody's",
    "login_failures.DELETE_OLD": "by age",
    "partitions.DROP_CHUNKS": "a day's readings are of all tenants",
    "disk_usage.AGGREGATES": "the catalogue of the database",
    "disk_usage.CHUNKS": "the catalogue of the database",
    "disk_usage.DAYS": "the catalogue of the database",
    "disk_usage.ENGINE": "the engine is the installation's",
    "disk_usage.ROLLUPS": "the catalogue of the database",
    "partitions.DROP": "a day's readings are of all tenants",
    "partitions.EXISTING": "the catalogue of the database",
    "partitions.CREATE": "a day's readings are of all tenants",
    "presence.END_FLAPPING": "every tenant's agents, by age",
    "presence.CLAIM_SILENT": "the silent agents of every tenant",
    "presence.UPDATE_FROM_ACTIVITY": "takes the tenant of each agent from `agents`",
    "presence.RECORD_WATCH": "the platform's own pauses",
    "presence.SAVE_CHANGES": "by agents just read",
    "presence.GET_WATCH": "the platform's own pauses",
    "provisioning_keys.FIND": "finds the tenant of a key",
    "readings.CONFLICTS": "by the ids of ledger rows just written",
    "readings.COPY": "into that table",
    "readings.STAGING": "a table of the connection's own",
    "readings.MISSING": "by the keys of rows just staged",
    "readings.STORE_OLD": "stores what was decoded from an agent's own topic",
    "readings.UNLIMITED": "a setting",
    "readings.CLOSED_UNTIL": "the rollups' progress is the installation's",
    "readings.LOCK_SHARED": "a lock",
    "lease.CHECK_FENCE": "a lease is the installation's",
    "lease.CLAIM_FENCE": "a lease is the installation's",
    "targets.DELETE_OLD_VERSIONS": "by age",
    "agent_updates.DELETE_OLD": "by age",
    "rollouts.NOTICES_AFTER_RETURN": "agents of every tenant that are back",
    "job_timeouts.OVERDUE": "the silent agents of every tenant",
    "rollouts.ACTIVE_JOBS": "the jobs of every tenant",
    "rollouts.LOCK": "by the id of a job just listed",
    "rollouts.DUE_NOTICES": "agents of every tenant that a job has come to",
    "rollups.CLAIM": "the rollups' progress is the installation's",
    "rollups.CLOSE": "the rollups' progress is the installation's",
    "rollups.DAYS": "rolls up every tenant's readings of a time",
    "rollups.HOURS": "rolls up every tenant's readings of a time",
    "rollups.HOURS_RAW": "rolls up every tenant's readings of a time",
    "rollups.LATE_DAYS": "by agents whose readings were stored for their tenant",
    "rollups.LATE_HOURS": "by agents whose readings were stored for their tenant",
    "rollups.LATE_HOURS_RAW": "by agents whose readings were stored for their tenant",
    "rollups.LATE_MINUTES": "by agents whose readings were stored for their tenant",
    "lease.LOCK_WAIT": "a setting",
    "rollups.LOCK": "a setting",
    "rollups.MINUTES": "rolls up every tenant's readings of a time",
    "rollups.OLDEST_LATE_HOUR": "the oldest of every tenant",
    "rollups.NEWEST_LATE_HOUR": "the newest of every tenant",
    "rollups.LOCK_PROGRESS_ROW": "the one row of progress",
    "rollups.STEP_SETTINGS": "a setting",
    "rollups.PROGRESS": "the rollups' progress is the installation's",
    "rollups.ROLLED": "the rollups' progress is the installation's",
    "rollups.TAKE_LATE_HOURS": "every tenant's, day by day",
    "agent_cache.CHANGED": "finds the tenants of agents",
    "agent_cache.DATABASE_NOW": "a clock",
    "message_gaps.TAKE": "joins every tenant's numbers, agent by agent",
    "series.GET": "agents were checked against their tenant before",
    "series.UPDATE": "agents were checked against their tenant before",
    "sessions.END_REUSED": "finds the session of a refresh token",
    "sessions.DELETE_ENDED": "by age",
    "sessions.LIVE": "finds the session of an access token",
    "sessions.ROTATE": "finds the session of a refresh token",
    "timeline.DELETE_OLD": "by age",
    "tenants.ALL": "tenants themselves",
    "tenants.FIND": "tenants themselves, for the command line",
    "agent_updates.END_FINISHED": "the open updates of every tenant, by age",
    "users.BY_LOGIN": "log-in names no tenant",
}


OWNERS = {"continuous_aggregates", "timescale"}
"""What the owner of the tables does at a start, for all tenants."""
SCOPE = re.compile(r"%\(tenants?\)s|\{tenant\}")


def statements() -> dict[str, str]:
    found = {}
    for module in pkgutil.walk_packages(iotistica.storage.__path__, "iotistica.storage."):
        loaded, area = importlib.import_module(module.name), module.name.rpartition(".")[2]
        for name, value in vars(loaded).items():
            if (
                name.isupper()
                and isinstance(value, str)
                and not name.startswith("_")
                and " " in value
                and area not in OWNERS
                and "redis.call" not in value
                and re.search(r"\b(SELECT|INSERT|UPDATE|DELETE|SET|COPY|CREATE)\b", value)
            ):
                found[f"{area}.{name}"] = value
    return found


def test_every_statement_is_scoped_to_a_tenant_or_listed() -> None:
    """A statement without a tenant is a decision, not an oversight."""
    unscoped = {name for name, text in statements().items() if not SCOPE.search(text)}
    assert unscoped == set(GLOBAL)
    assert len(statements()) > 30


def test_every_route_names_its_permission() -> None:
    """A route that forgets to is refused by this, and by the guard."""
    broker = BrokerAddress(protocol="mqtt", host="h", port=1)
    context = ServerContext(settings=settings.Settings(), key=bytes(32), broker=broker)
    nothing: Any = None
    made = app.create(
        **dict.fromkeys(
            (
                "database",
                "platform_database",
                "redis",
                "inbox",
                "process_health",
                "agent_cache",
                "poll_answers",
                "poll_counts",
                "timeline_counts",
                "live_hub",
            ),
            nothing,
        ),
        context=context,
        roles=[],
    )
    handlers = [
        handler
        for route in made.routes
        for handler in getattr(route, "route_handlers", ())
        if isinstance(handler, HTTPRouteHandler) and not route.path.startswith("/schema")
    ]
    assert len(handlers) > 50
    for handler in handlers:
        if handler.handler_name != "options_handler" and "OPTIONS" not in handler.http_methods:
            assert handler.opt.get("permission") in {PUBLIC, AGENT, BROKER, *PERMISSIONS}, handler


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_says_what_it_is_for(path: Path) -> None:
    """One noun in one layer: a sentence at its head, at most 300 lines, no `global`."""
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "no docstring"
    assert len(text.splitlines()) <= 300
    assert not any(isinstance(node, ast.Global) for node in ast.walk(tree))


def test_only_the_command_line_reads_the_environment() -> None:
    """Everything else gets its settings as arguments."""
    readers = {path.name for path in CODE if "os.environ" in path.read_text()}
    assert readers <= {"main.py", "mosquitto.py"}  # the latter for PATH alone, to find the program


def test_keys_of_a_tenant_lie_in_one_slot() -> None:
    """The tenant's id is the hash tag of all its keys."""
    tenant = settings_tenant = redis.TenantId("a1b2c3d4e5f6")  # type: ignore[attr-defined]
    for key in (redis.readings_stream(tenant), redis.dead_letter_stream(tenant), redis.ledger_key(tenant)):
        assert key.startswith(f"tenant:{{{settings_tenant}}}:")
    assert redis.readings_group(tenant) == "{a1b2c3d4e5f6}:device-writers"


def test_settings_read_the_environment_and_hide_secrets() -> None:
    """Text becomes numbers, passwords become stars."""
    loaded = settings.load({"IOTISTICA_HTTP_PORT": "8080", "IOTISTICA_ADMIN_PASSWORD": "hush", "PATH": "/bin"})
    assert loaded.http_port == 8080
    shown = {name: value for name, value, _ in settings.describe(loaded)}
    assert shown["IOTISTICA_ADMIN_PASSWORD"] == "***"
    assert settings.mask("postgresql://me:secret@host:5432/db") == "postgresql://me:***@host:5432/db"


def test_every_setting_is_documented() -> None:
    """The page is written by `iotistica config --markdown`."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    for name, _, meaning in settings.describe(settings.Settings()):
        assert f"`{name}`" in page
        assert meaning in page
