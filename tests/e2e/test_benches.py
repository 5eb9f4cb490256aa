"""Every bench runs to its end with tiny sizes and writes its report; nothing is asserted about speed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bench import generate, ingest
from iotistica.storage.agents.directory import Directory
from iotistica.storage.delivery import ledger
from iotistica.storage.postgres import Database
from tests.conftest import Stack
from tests.serving import new_data_folder

ROOT = Path(__file__).parents[2]
COMMON = {"machine", "commit"}


def run(results: Path, name: str, *arguments: str) -> tuple[dict[str, Any], str]:
    """Run `python -m bench.<name>`; return its report and what it printed."""
    command = [sys.executable, "-m", f"bench.{name}", *arguments, "--results", str(results)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads((results / f"{name}.json").read_text())
    assert report.keys() >= COMMON
    assert f'"machine": "{report["machine"]}"' in done.stdout
    return report, done.stdout


def test_accounts(tmp_path: Path) -> None:
    """The bench of broker accounts measures the rendering and both ways in which a revoked agent is locked out."""
    report, _ = run(tmp_path, "accounts", "--agents", "3", "--rounds", "1")
    assert report.keys() == COMMON | {"agents", "rounds", "seconds"}
    assert report["seconds"].keys() == {"mqtt", "http", "render"}
    assert all(figure.keys() == {"median", "max"} for figure in report["seconds"].values())


def test_compression_without_timescaledb(tmp_path: Path) -> None:
    """Without a URL the bench of compression measures the plain partitions alone."""
    report, _ = run(tmp_path, "compression", "--days", "1")
    assert report.keys() == COMMON | {"days", "rows", "plain_bytes_a_row"}
    assert report["rows"] > 0


def test_alerts(tmp_path: Path) -> None:
    """The bench of the detector judges every made series, and draws three of them in less than 100 kB each."""
    report, printed = run(tmp_path, "alerts", "--tiny", "--plots", str(tmp_path))
    assert report.keys() == COMMON | {"false alarms a week", "events", "cost"}
    assert report["cost"].keys() == {"us_a_reading", "stored_bytes_a_series", "live_bytes_a_series"}
    assert report["false alarms a week"]["constant"]["1800 s"]["0.9"] == {"first": 0, "later": 0}
    assert report["events"]["spike"]["1800 s"]["0.9"]["found"] == 1
    assert "| spike | 1 of 1 after 0 min |" in printed
    drawings = list(tmp_path.glob("*.svg"))
    assert len(drawings) == 3
    assert all(drawing.stat().st_size < 100_000 for drawing in drawings)


def test_alerts_of_the_numenta_benchmark(tmp_path: Path) -> None:
    """A corpus with one spike, at the beginning of its window, gets nearly 100 points in each profile and half."""
    (tmp_path / "data" / "one").mkdir(parents=True)
    start = datetime(2026, 3, 2, tzinfo=UTC)
    stamps = [f"{start + timedelta(minutes=5 * row):%Y-%m-%d %H:%M:%S}" for row in range(3000)]
    for name in ("a.csv", "b.csv"):
        rows = [f"{stamp},{row % 7 + (90 if row == 2500 else 0)}" for row, stamp in enumerate(stamps)]
        (tmp_path / "data" / "one" / name).write_text("\n".join(["timestamp,value", *rows]))
    windows = {f"one/{name}": [[f"{stamps[2500]}.000000", f"{stamps[2600]}.000000"]] for name in ("a.csv", "b.csv")}
    (tmp_path / "combined_windows.json").write_text(json.dumps(windows))
    command = [sys.executable, "-m", "bench.alerts", "--nab", str(tmp_path), "--results", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    report = json.loads((tmp_path / "alerts_nab.json").read_text())
    assert all(part["score"] > 99 for profile in report["profiles"].values() for part in profile.values())
    assert report["folders at the standard threshold"]["one"]["hits"] == 2


@pytest.mark.built_in_postgres
def test_ingest(tmp_path: Path) -> None:
    """The bench of ingestion runs with both baselines, and the server raises no alarm."""
    report, printed = run(tmp_path, "ingest", "--agents", "3", "--messages", "2", "--rounds", "1")
    expected = {"agents", "readings_a_round", "rounds", "median", "resident_peak_mib", "alarms"}
    assert report.keys() == COMMON | expected | {"share_of_transaction", "share_of_bare_copy"}
    assert report["median"].keys() == {"end_to_end", "cpu_us_a_reading", "transaction", "bare_copy"}
    assert report["alarms"] == {}
    assert "HTTP server started" in printed  # the server's log is part of the output
    assert not [line for line in printed.splitlines() if "ERROR" in line and "ledger" in line]


async def test_the_baselines_of_ingest_stay_out_of_the_ledger_checks(database: Database, stack: Stack) -> None:
    """The baselines store their readings, and their tenant is not among those whose ledgers are checked."""
    members = await ingest.enlist_baseline(database, stack.key, f"baseline {uuid4()}", 2)
    tenant = members[0].tenant
    assert await ingest.transaction(database, members, 2) > 0
    assert await ingest.bare_copy(database, members, 1) > 0
    async with database.transaction() as tx:
        balance = await ledger.readings_balance(tx, tenant, None)
        agents = [member.agent for member in members]
        cursor = await tx.execute("SELECT count(*) FROM readings WHERE agent_uuid = ANY(%s)", [agents])
        rows = await cursor.fetchone()
    assert balance.stored == 2 * 2 * generate.SERIES
    assert rows == (2 * 3 * generate.SERIES,)
    assert tenant not in await Directory(database).tenants()


@pytest.mark.built_in_postgres
def test_rules(tmp_path: Path) -> None:
    """The bench of rules measures rounds without and with rules, and how soon a webhook has a message."""
    sizes = ("--agents", "4", "--messages", "2", "--rounds", "1", "--learned", "2", "--breaches", "2")
    report, _ = run(tmp_path, "rules", *sizes, "--pause", "0.1", "--rate", "100", "--settle", "1")
    assert report["us_a_reading"].keys() == {"none", "threshold", "anomaly"}
    assert report["seconds_to_the_webhook"].keys() == {"p50", "p99", "max"}
    assert report["learned_series"] == 20


def test_poll(tmp_path: Path) -> None:
    """The bench of polls measures both answers, the constant route and a fixed rate."""
    sizes = ("--agents", "3", "--seconds", "0.2", "--rounds", "1", "--rate", "50")
    report, _ = run(tmp_path, "poll", *sizes)
    at_a_rate = "50 requests a second, ms"
    assert report.keys() == COMMON | {"agents", "requests a second", "share of the constant", at_a_rate}
    assert report["requests a second"].keys() == {"constant", "304", "200"}
    assert report["share of the constant"].keys() == {"304", "200"}
    assert report[at_a_rate].keys() == {"rate", "p50", "p99", "p999"}


@pytest.fixture(scope="module")
def kept() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder that the bench of queries kept, and its report."""
    with new_data_folder() as folder:
        sizes = ("--days", "2", "--agents", "1", "--series", "2", "--rounds", "2")
        report, _ = run(folder / "results", "query", *sizes, "--keep", str(folder))
        yield folder, report


@pytest.mark.built_in_postgres
def test_query(kept: tuple[Path, dict[str, Any]]) -> None:
    """The bench of queries stores readings, waits for their rollups, and measures every query in three ways."""
    _, report = kept
    assert report.keys() == COMMON | {"load_seconds", "roll_up_seconds", "tables", "questions"}
    assert [table["table"] for table in report["tables"]] == [
        *("readings", "readings_1h", "readings_1m", "readings_daily"),
    ]
    assert len(report["questions"]) == 6
    for question in report["questions"]:
        assert question.keys() >= {"question", "source", "http_p50_ms", "functions_p50_ms", "bare_p50_ms"}


@pytest.mark.built_in_postgres
def test_export_of_the_kept_readings(kept: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """The bench of exports uses the folder of the bench of queries, and exports all readings of the agent."""
    folder, _ = kept
    report, _ = run(tmp_path, "export", "--keep", str(folder))
    assert report.keys() == COMMON | {"format", "rows", "mb", "seconds", "mib_before", "mib_peak"}
    assert report["format"] == "csv"
    assert report["rows"] >= 2 * 2 * 24 * 60  # two series with a reading a minute, for two days and today
