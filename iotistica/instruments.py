"""All metrics with their units and meanings; counters are increased once per batch, not once per message."""

from typing import Final

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, generate_latest

_meter: Final = metrics.get_meter("iotistica")

TAKEN: Final = _meter.create_counter(
    "iotistica_messages_taken", "1", "messages accepted and durable, in a stream or in a spool on disk"
)
TAKEN_BYTES: Final = _meter.create_counter(
    "iotistica_messages_taken_bytes", "By", "payload bytes of the accepted messages"
)
REFUSED: Final = _meter.create_counter(
    "iotistica_messages_refused", "1", "messages that the intake could not route, by reason"
)
PAUSES: Final = _meter.create_counter(
    "iotistica_intake_pauses", "1", "number of times that the intake stopped reading, by reason"
)
READINGS: Final = _meter.create_counter(
    "iotistica_readings", "1", "readings by outcome: stored, duplicate, conflict, rejected"
)
LOG_LINES: Final = _meter.create_counter("iotistica_log_lines", "1", "log lines by outcome: stored, dropped")
SERIES: Final = _meter.create_counter(
    "iotistica_series",
    "1",
    "changes of known series: of the unit, of the protocol, or to another device with the same name",
)
DEAD: Final = _meter.create_counter("iotistica_dead_letters", "1", "messages stored as dead letters, by reason")
BATCH_SECONDS: Final = _meter.create_histogram(
    "iotistica_ingest_batch_seconds",
    "s",
    "time from reading a batch from the streams to acknowledging it",
    explicit_bucket_boundaries_advisory=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
)
RULE_SECONDS: Final = _meter.create_histogram(
    "iotistica_alert_round_seconds",
    "s",
    "time of one round of the alert rules over what was stored since the last",
    explicit_bucket_boundaries_advisory=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
)
WATCHED: Final = _meter.create_gauge("iotistica_alert_series", "1", "series that alert rules watch")
INCIDENTS: Final = _meter.create_counter(
    "iotistica_incidents", "1", "incidents that were opened or resolved, by what happened and by severity"
)
NOTICES: Final = _meter.create_counter(
    "iotistica_notices", "1", "attempts to deliver notices of incidents, by outcome: delivered, failed, dead"
)
ALARMS: Final = _meter.create_gauge("iotistica_alarm", "1", "1 while the alarm is raised, otherwise 0, by alarm")
BREAKER: Final = _meter.create_gauge(
    "iotistica_breaker", "1", "state of the circuit breaker, by dependency: 0 closed, 1 half open, 2 open"
)
SPOOLED: Final = _meter.create_counter(
    "iotistica_messages_spooled", "1", "messages written to a spool on disk before they went to a stream"
)
SPOOL_BYTES: Final = _meter.create_gauge("iotistica_spool_bytes", "By", "size of the spool on disk, by spool")
SPOOL_MESSAGES: Final = _meter.create_gauge("iotistica_spool_messages", "1", "messages in the spool, by spool")
BROKER_STORED: Final = _meter.create_gauge(
    "iotistica_broker_stored_bytes", "By", "size of the messages stored in the broker, retained ones included"
)
BROKER_DROPPED: Final = _meter.create_gauge(
    "iotistica_broker_dropped", "1", "messages of all clients that the broker has dropped since it started"
)
BROKER_REFUSED: Final = _meter.create_counter(
    "iotistica_broker_refused_logins", "1", "log-ins that the broker has refused"
)
WORKERS: Final = _meter.create_gauge(
    "iotistica_ingest_workers", "1", "number of consumers in this process that store readings"
)
LAG_SECONDS: Final = _meter.create_gauge(
    "iotistica_ingest_lag_seconds", "s", "age of the oldest message that no consumer has read yet"
)
IMBALANCE: Final = _meter.create_gauge(
    "iotistica_ledger_imbalance",
    "1",
    "messages or readings that were accepted, but that the ledgers of all tenants cannot account for",
)
RENDER_SECONDS: Final = _meter.create_histogram(
    "iotistica_broker_render_seconds",
    "s",
    "time from reading the broker's accounts in the database to making the broker reload them",
    explicit_bucket_boundaries_advisory=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
)
AGENTS: Final = _meter.create_gauge(
    "iotistica_agents", "1", "agents of all tenants by presence: online, silent, offline, new"
)
TASK_SUCCESS: Final = _meter.create_gauge(
    "iotistica_task_last_success_timestamp", "s", "Unix time of the last success of a background task, by task"
)
RESTARTS: Final = _meter.create_counter("iotistica_group_restarts", "1", "restarts of task groups, by group")


def start() -> None:
    """Install the provider behind the instruments; call it once in a process."""
    metrics.set_meter_provider(
        MeterProvider([PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False)])
    )


def scrape() -> bytes:
    """Return all metrics in the Prometheus text format."""
    return generate_latest(REGISTRY)
