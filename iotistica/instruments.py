"""Every metric with its unit and its meaning. Added to once a batch, never once a message."""

from typing import Final

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, generate_latest

_meter: Final = metrics.get_meter("iotistica")

TAKEN: Final = _meter.create_counter(
    "iotistica_messages_taken", "1", "messages that are durable: in a stream, or on the disk"
)
TAKEN_BYTES: Final = _meter.create_counter("iotistica_messages_taken_bytes", "By", "their payload bytes")
REFUSED: Final = _meter.create_counter(
    "iotistica_messages_refused", "1", "messages the intake could not route, by reason"
)
PAUSES: Final = _meter.create_counter("iotistica_intake_pauses", "1", "times the intake stopped reading, by reason")
READINGS: Final = _meter.create_counter(
    "iotistica_readings", "1", "readings by outcome: stored, duplicate, conflict, rejected"
)
LOG_LINES: Final = _meter.create_counter("iotistica_log_lines", "1", "log lines by outcome: stored, dropped")
SERIES: Final = _meter.create_counter(
    "iotistica_series",
    "1",
    "known series that changed: unit or protocol, or another device under the same name",
)
DEAD: Final = _meter.create_counter("iotistica_dead_letters", "1", "messages put aside with their bytes, by reason")
BATCH_SECONDS: Final = _meter.create_histogram(
    "iotistica_ingest_batch_seconds",
    "s",
    "from reading a batch off the streams to its acknowledgement",
    explicit_bucket_boundaries_advisory=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
)
ALARMS: Final = _meter.create_gauge("iotistica_alarm", "1", "1 while an alarm is raised, by its name")
BREAKER: Final = _meter.create_gauge(
    "iotistica_breaker", "1", "circuit breaker by dependency: 0 closed, 1 half open, 2 open"
)
SPOOLED: Final = _meter.create_counter("iotistica_messages_spooled", "1", "messages that went to the disk first")
SPOOL_BYTES: Final = _meter.create_gauge("iotistica_spool_bytes", "By", "on disk, by spool")
SPOOL_MESSAGES: Final = _meter.create_gauge("iotistica_spool_messages", "1", "that wait on disk, by spool")
BROKER_STORED: Final = _meter.create_gauge(
    "iotistica_broker_stored_bytes", "By", "messages that wait in the broker, retained ones included"
)
BROKER_DROPPED: Final = _meter.create_gauge(
    "iotistica_broker_dropped", "1", "messages that the broker has dropped since it started, of all clients"
)
WORKERS: Final = _meter.create_gauge(
    "iotistica_ingest_workers", "1", "consumers of this process that store readings"
)
LAG_SECONDS: Final = _meter.create_gauge(
    "iotistica_ingest_lag_seconds", "s", "age of the oldest message that no consumer has taken yet"
)
IMBALANCE: Final = _meter.create_gauge(
    "iotistica_ledger_imbalance",
    "1",
    "messages or readings of which a ledger does not know what became, of all tenants",
)
RENDER_SECONDS: Final = _meter.create_histogram(
    "iotistica_broker_render_seconds",
    "s",
    "from reading the broker's accounts to telling it to reload",
    explicit_bucket_boundaries_advisory=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
)
TASK_SUCCESS: Final = _meter.create_gauge(
    "iotistica_task_last_success_timestamp", "s", "Unix time of the last success of a background task, by task"
)
RESTARTS: Final = _meter.create_counter("iotistica_group_restarts", "1", "restarts of a task group, by group")


def start() -> None:
    """Install the provider behind the instruments; call once a process."""
    metrics.set_meter_provider(
        MeterProvider([PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False)])
    )


def scrape() -> bytes:
    """Everything in Prometheus text format."""
    return generate_latest(REGISTRY)
