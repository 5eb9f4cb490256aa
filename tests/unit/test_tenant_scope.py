"""Every SQL statement and every Redis key is scoped to a tenant, or listed here with the reason why it is not."""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest

import iotistica.storage
from iotistica.domain.ids import TenantId
from iotistica.storage import redis
from tests.statements import statements, statements_of

ROOT = Path(__file__).parents[2]
SCOPE = re.compile(r"%\(tenants?\)s|\{tenant\}")

# The reason of a statement without a tenant, and the names of the statements.
REASONS = {
    "Runs before the tenant is known: the secret, id or name that the caller presents identifies the tenant.": (
        "agent_keys.FIND api_keys.FIND one_time_links.USE provisioning_keys.FIND sessions.END_REUSED sessions.LIVE"
        " sessions.ROTATE sessions.REPEATED users.BY_LOGIN"
    ),
    "Returns the tenants of agents of any tenant, for a cache or the intake.": "agents.TENANTS_OF agent_cache.CHANGED",
    "Reads the table of tenants itself, by id or name or as a whole.": "tenants.ALL tenants.FIND",
    "Serves the broker, which has one list of accounts for all tenants.": (
        "broker_accounts.FIND broker_accounts.LAST_RENDER broker_accounts.PASSWORD_LINES"
        " broker_accounts.RECORD_RENDER broker_accounts.USERS_WITH_RULES"
    ),
    "Counts failed logins by login name; a name that is tried need not belong to any user.": (
        "login_failures.ADD login_failures.CLEAR login_failures.FIND"
    ),
    "Deletes expired rows of all tenants, by age or by number.": (
        "agent_updates.DELETE_OLD events.DELETE_OLD notices.DELETE_OLD incident_ends.DELETE_OLD silences.DELETE_OLD jobs.DELETE_OLD logs.DELETE_BATCHES logs.DELETE_SERVICES login_failures.DELETE_OLD"
        " one_time_links.DELETE_EXPIRED sessions.DELETE_ENDED targets.DELETE_OLD_VERSIONS timeline.DELETE_OLD"
    ),
    "Sets a parameter of the transaction, takes a lock or reads a clock; touches no rows of tenants.": (
        "agent_cache.DATABASE_NOW broker_accounts.DATABASE_NOW erasures.LONG_STATEMENTS lease.LOCK_WAIT"
        " partitions.drop_before readings.LOCK_SHARED readings.UNLIMITED rollups.LOCK rollups.STEP_SETTINGS"
        " ledger.XMIN postgres.SNAPSHOT tenant_export.ALLOW_DELETE tenant_export.UNBOUNDED"
    ),
    "Locks the uuid of an agent, which must be unique among all tenants.": "identities.LOCK",
    "Manages partitions, which contain the readings of all tenants.": (
        "partitions.CREATE partitions.DROP partitions.DROP_CHUNKS partitions.EXISTING"
    ),
    "Reads the sizes of tables from the catalog of the database.": (
        "disk_usage.AGGREGATES disk_usage.CHUNKS disk_usage.DAYS disk_usage.ROLLUPS"
    ),
    "Reads or writes a table with one row for the whole platform (`rollup_progress`, `presence_watch`).": (
        "coverage._SINCE[readings] coverage._SINCE[readings_1h] coverage._SINCE[readings_1m] disk_usage.ENGINE"
        " presence.GET_WATCH presence.RECORD_WATCH state_findings.PLATFORM_SINCE rule_states.LAST_ROUND rule_states.RECORD_ROUND readings.CLOSED_UNTIL rollups.CLAIM rollups.CLOSE"
        " rollups.LOCK_PROGRESS_ROW rollups.PROGRESS rollups.ROLLED"
    ),
    "Reads or writes a lease; leases belong to the platform and not to a tenant.": (
        "lease.CHECK_FENCE lease.CLAIM_FENCE"
    ),
    "A background task that processes all tenants; each row keeps its tenant.": (
        "announcements.UNTOLD announcements.END_UNTOLD announcements.ESCALATING incident_ends.EXPIRED"
        " ledger.STORED_SINCE notices.DUE rules.ENABLED rules.REVISION "
        "agent_updates.END_FINISHED erasures.NEXT_OPEN job_timeouts.OVERDUE ledger.CLOCK_OFFSETS"
        " ledger.FOLD_READINGS ledger.FOLD_REJECTIONS message_gaps.TAKE presence.CLAIM_SILENT presence.COUNT_BY_STATUS"
        " presence.END_FLAPPING presence.UPDATE_FROM_ACTIVITY rollouts.ACTIVE_JOBS rollouts.DUE_NOTICES"
        " rollouts.NOTICES_AFTER_RETURN rollouts._NOTICE"
    ),
    "Updates agents or locks jobs by the ids that a statement for all tenants has just returned.": (
        "presence.SAVE_CHANGES rollouts.LOCK"
    ),
    "Rolls up the readings of all tenants; rollups are by agent, and an agent belongs to one tenant.": (
        "rollups.DAYS rollups.HOURS rollups.HOURS_RAW rollups.RECOMPUTE_DAYS rollups.RECOMPUTE_HOURS rollups.RECOMPUTE_HOURS_RAW"
        " rollups.RECOMPUTE_MINUTES rollups.MINUTES late_readings.NEWEST_HOUR late_readings.OLDEST_HOUR"
        " late_readings.TAKE_HOURS late_readings.MARK_HOURS late_readings.MARK_SEEN"
        " late_readings.FORGET_SEEN rollups._recompute_sql rollups._rollup_sql"
    ),
    "Selects by agents whose tenant the caller has checked.": (
        "erasures.MARK_HOURS erasures.ROLLUPS series.GET series.UPDATE"
    ),
    "Stores readings of a batch with several tenants; the topic of a message identifies the agent.": (
        "readings.CONFLICTS readings.REPEAT_CONFLICTS readings.COPY readings.MISSING readings.STAGING"
        " readings.STORE_OLD readings._INSERT"
    ),
    "A part of a statement; another part has the condition on the tenant.": (
        "agent_search._SUMMARY agent_search.count agent_search.ids agent_search.page aggregates._select_source"
        " aggregates._select_source[1] aggregates.totals postgres._count series_search.find"
        " tenant_export.export_tenant announcements._SELECT notice_search._SELECT"
    ),
    "Manages the server or a connection; reads and writes no rows.": (
        "api.http.health._database embedded.postgres._initialise postgres.Database.listen"
        " role_logins.allow_role_logins role_logins.check_membership role_logins.check_membership[1]"
        " refreshes.DAYS_ROLLED refreshes.LAST_RUNS refreshes.REACHED"
    ),
}
GLOBAL = {name: reason for reason, names in REASONS.items() for name in names.split()}

NO_KEYS = {"broker_accounts._line": "returns a line of the broker's password file"}
"""Functions of storage that have a parameter `tenant` and return text, but no Redis key."""

PLATFORM_KEYS = {
    "PLATFORM_DLQ": "dead letters of messages whose tenant is unknown",
    "OUTBOUND_TENANTS": "the set of tenants that have outbound messages",
    "ALARMS": "alarms of the platform's processes",
    "REFUSED_LOGINS": "counts of log-ins whose account the broker does not name",
}
"""The keys in redis.py that are not of a tenant."""

KEYS_ELSEWHERE = {
    "storage/lease.py": "leases are of the platform and not of a tenant",
}
"""Modules other than redis.py that may contain the text of a key."""

TENANT = TenantId("a1b2c3d4e5f6")
AGENT = UUID(int=7)
ARGUMENTS: Final[dict[str, Any]] = {
    "tenant": TENANT,
    "agent": AGENT,
    "kind": "state",
    "name": "login",
    "subject": "x",
    "minute": 1,
}
"""Values for the parameters of the functions that make keys."""


def test_every_statement_is_scoped_to_a_tenant_or_listed() -> None:
    """A statement without a tenant must be a decision, not an oversight."""
    unscoped = {name for name, text in statements().items() if not SCOPE.search(text)}
    assert unscoped - set(GLOBAL) == set(), "scope these statements to a tenant, or list them with a reason"
    assert set(GLOBAL) - unscoped == set(), "these no longer exist or are scoped: remove them from the list"
    assert len(statements()) > 300


MODULE = '''
"""SELECT in a docstring is not a statement."""
PLAIN = "SELECT 1 FROM plain"
_HIDDEN = "SELECT 1 FROM hidden"
_FRAGMENT = "AND agent_uuid IN (SELECT agent_uuid FROM fragment)"
BY_NAME = {"a": "SELECT 1 FROM a_dict", "b": ["SELECT 1 FROM a_list"]}
SEVERAL = ("SELECT 1 FROM a_tuple",)
SCRIPT = "redis.call('SET', 'x')"


class Store:
    FIND = "SELECT 1 FROM a_class"

    async def run(self, tx):
        """UPDATE in a docstring is not a statement."""
        await tx.execute("  SELECT 1 FROM a_method")
        await tx.execute(PLAIN + " WHERE x")


async def run(tx, table):
    statement = f"DELETE FROM {table} WHERE {PLAIN}"
    await tx.execute(statement)
    await fetch_rows(tx, "odd text")
    await tx.eval("redis.call('GET', 'SELECT 1')")
'''


def test_statements_are_found_wherever_they_are(tmp_path: Path) -> None:
    """In constants, containers, classes, f-strings, sums of texts and calls; not in docstrings and Lua scripts."""
    path = tmp_path / "example.py"
    path.write_text(MODULE)
    spec = importlib.util.spec_from_file_location("example", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert statements_of(module, "x") == {
        "x.PLAIN": "SELECT 1 FROM plain",
        "x._HIDDEN": "SELECT 1 FROM hidden",
        "x.BY_NAME[a]": "SELECT 1 FROM a_dict",
        "x.BY_NAME[b][0]": "SELECT 1 FROM a_list",
        "x.SEVERAL[0]": "SELECT 1 FROM a_tuple",
        "x.Store.FIND": "SELECT 1 FROM a_class",
        "x.Store.run": "  SELECT 1 FROM a_method",
        "x.Store.run[1]": "SELECT 1 FROM plain WHERE x",
        "x.run": "DELETE FROM <table> WHERE SELECT 1 FROM plain",
        "x.run[1]": "odd text",
    }


def key_functions() -> Iterator[tuple[str, Callable[..., str]]]:
    """Yield the functions of storage that have a parameter `tenant` and return text."""
    for info in pkgutil.walk_packages(iotistica.storage.__path__, "iotistica.storage."):
        module = importlib.import_module(info.name)
        for name, function in vars(module).items():
            if not inspect.isfunction(function) or function.__module__ != info.name:
                continue
            signature = inspect.signature(function)
            if inspect.iscoroutinefunction(function) or signature.return_annotation is not str:
                continue
            full = f"{info.name.rpartition('.')[2]}.{name}"
            if "tenant" in signature.parameters and full not in NO_KEYS:
                yield full, function


KEYS = dict(key_functions())


@pytest.mark.parametrize("name", KEYS)
def test_every_key_of_a_tenant_has_it_as_its_hash_tag(name: str) -> None:
    """All keys of a tenant are in one slot of a cluster, and a tenant's removal finds them by their prefix."""
    parameters = inspect.signature(KEYS[name]).parameters
    assert set(parameters) <= set(ARGUMENTS), f"give {name} arguments in ARGUMENTS"
    key = KEYS[name](**{parameter: ARGUMENTS[parameter] for parameter in parameters})
    if name.endswith("_group"):  # a consumer group is a part of its stream
        assert key.startswith(f"{{{TENANT}}}:")
    else:
        assert key.startswith(f"tenant:{{{TENANT}}}:")
    others = {**ARGUMENTS, "tenant": TenantId("ffffffffffff")}
    assert KEYS[name](**{parameter: others[parameter] for parameter in parameters}) != key


def test_the_functions_that_make_keys_are_found() -> None:
    """All functions of redis.py that return text, so that one without a tenant is not forgotten either."""
    made = {
        f"redis.{name}"
        for name, function in vars(redis).items()
        if inspect.isfunction(function)
        and function.__module__ == redis.__name__
        and inspect.signature(function).return_annotation is str
    }
    assert len(made) > 10
    assert made <= set(KEYS)


def test_the_other_keys_are_of_the_platform() -> None:
    """Only the listed constants are keys; a limit without a tenant counts by address."""
    constants = {
        name for name, value in vars(redis).items() if isinstance(value, str) and name.isupper() and ":" in value
    }
    assert constants == set(PLATFORM_KEYS)
    assert all(getattr(redis, name).startswith("platform:") for name in PLATFORM_KEYS)
    assert redis.limit_key(None, "wrong", "x", 1) == "limit:wrong:x:1"


def test_no_other_module_writes_the_text_of_a_key() -> None:
    """A key that is not made in redis.py would escape the tests above."""
    writers = {}
    for path in sorted((ROOT / "iotistica").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            first = parts[0] if parts else None
            text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
            if re.match(r"(tenant|platform|lease|limit):\S*$", text):
                writers[str(path.relative_to(ROOT / "iotistica"))] = text
    assert set(writers) == {"storage/redis.py", *KEYS_ELSEWHERE}
