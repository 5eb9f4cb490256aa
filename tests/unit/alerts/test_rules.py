"""What is checked before a rule, a target, a policy or a template is stored, and how they match and route."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.alerts import (
    addresses,
    escalations,
    incidents,
    message_templates,
    notices,
    retries,
    schedules,
    scopes,
    targets,
)
from iotistica.domain.alerts.escalations import Policy, Step
from iotistica.domain.alerts.incidents import NewMember, OpenIncident, Subject
from iotistica.domain.alerts.rules import Grouping, RuleSpec
from iotistica.domain.alerts.schedules import Schedule, Window
from iotistica.domain.alerts.scopes import AgentFacts, Scope
from iotistica.domain.alerts.targets import TargetSpec, Template, Webhook
from iotistica.errors import Invalid

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ({"condition": {"kind": "threshold"}}, "condition"),
        ({"condition": {"kind": "threshold", "above": 1, "below": 2}}, "condition.below"),
        ({"condition": {"kind": "threshold", "above": 1, "clearBelow": 2}}, "condition.clearBelow"),
        ({"condition": {"kind": "threshold", "above": 1, "clearAbove": 0}}, "condition.clearAbove"),
        (
            {"condition": {"kind": "threshold", "above": 9, "below": 1, "clearBelow": 2, "clearAbove": 5}},
            "condition.clearAbove",
        ),
        ({"condition": {"kind": "absence"}}, "forSeconds"),
        ({"condition": {"kind": "stuck"}}, "forSeconds"),
        ({"condition": {"kind": "anomaly"}, "forSeconds": 5}, "forSeconds"),
        ({"condition": {"kind": "agent"}, "scope": {"series": "x"}}, "scope"),
        ({"condition": {"kind": "platform"}, "scope": {"agent": str(uuid4())}}, "scope"),
        ({"condition": {"kind": "quality"}, "limits": [{"device": "x", "above": 1}]}, "limits"),
        ({"condition": {"kind": "threshold", "above": 1}, "limits": [{"above": 1}]}, "limits[0]"),
        ({"condition": {"kind": "threshold", "above": 1}, "limits": [{"device": "a"}]}, "limits[0]"),
        ({"condition": {"kind": "threshold", "above": 1}, "scope": {"tags": "=x"}}, "scope.tags"),
        ({"condition": {"kind": "threshold", "above": 1}, "scope": {"series": "*a" * 20}}, "scope.series"),
        (
            {
                "condition": {"kind": "threshold", "above": 1},
                "active": {"zone": "Mars", "windows": [{"start": "01:00", "end": "02:00"}]},
            },
            "active.zone",
        ),
        (
            {
                "condition": {"kind": "threshold", "above": 1},
                "maintenance": {"windows": [{"start": "25:00", "end": "02:00"}]},
            },
            "maintenance.windows[0].start",
        ),
        ({"condition": {"kind": "threshold", "above": 1}, "labels": {"?": "x"}}, "labels.?"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused_with_the_path(rule: dict[str, Any], path: str) -> None:
    """Each mistake is told with the field that must be changed."""
    with pytest.raises(Invalid) as raised:
        msgspec.convert(rule, RuleSpec).check()
    assert raised.value.path == path


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_bounds_are_finite(number: float) -> None:
    """JSON cannot say NaN, but a bound can also come from elsewhere."""
    with pytest.raises(Invalid):
        msgspec.convert({"condition": {"kind": "threshold", "above": number}}, RuleSpec).check()


@pytest.mark.parametrize(
    ("channel", "path"),
    [
        ({"url": "ftp://example.com"}, "channel.url"),
        ({"url": "https://user:pass@example.com"}, "channel.url"),
        ({"url": "https://example.com:99999/"}, "channel.url"),
        ({"url": "https://exa mple.com/"}, "channel.url"),
        ({"url": "https://example.com", "signingSecrets": ["short"]}, "channel.signingSecrets[0]"),
        ({"url": "https://example.com", "signingSecrets": ["whsec_QUJD"]}, "channel.signingSecrets[0]"),
        ({"url": "https://example.com", "headers": {"Host": "x"}}, "channel.headers.Host"),
        ({"url": "https://example.com", "headers": {"webhook-id": "x"}}, "channel.headers.webhook-id"),
        ({"url": "https://example.com", "headers": {"X": "a\r\nb"}}, "channel.headers.X"),
        ({"url": "https://example.com", "format": "pagerduty"}, "channel.routingKey"),
    ],
)
def test_a_channel_that_cannot_work_is_refused(channel: dict[str, Any], path: str) -> None:
    """A header that ends the line, a secret that is too short and the like are told with their path."""
    with pytest.raises(Invalid) as raised:
        msgspec.convert({"channel": {"kind": "webhook"} | channel}, TargetSpec).check()
    assert raised.value.path == path


@pytest.mark.parametrize(
    "text",
    [
        "{{ title",
        "{% for x in %}",
        "{{ nothing }}",
        "{{ title | nofilter }}",
        "{% for i in (1..100000) %}{{ i }}{% endfor %}",
        "{% for i in (1..2000) %}{% for j in (1..2000) %}x{% endfor %}{% endfor %}",
        "{% include 'file' %}",
    ],
)
def test_a_template_that_fails_or_costs_too_much_is_refused(text: str) -> None:
    """It is told with its path when it is stored, long before a message needs it."""
    with pytest.raises(Invalid) as raised:
        TargetSpec(channel=Webhook(url="https://example.com"), template=Template(text=text)).check()
    assert raised.value.path == "template.text"


def test_a_template_can_use_what_the_preview_shows() -> None:
    """Every name of the example is a name of real facts."""
    facts = notices.example("opened", NOW)
    assert set(facts.builtins()) == set(message_templates.EXAMPLE) | {"at"}
    shown = notices.title(facts, Template(title="{{ severity | upcase }}: {{ about[0].metricName }}"))
    assert shown == "CRITICAL: boiler.temperature"
    assert notices.text(facts, Template(text="{{ gone }}")) == notices.text(facts, Template())


policy_ids = [UUID(int=n) for n in range(5)]


@given(st.lists(st.one_of(st.none(), st.sampled_from(policy_ids)), min_size=5, max_size=5))
def test_policies_never_continue_in_a_circle(links: list[UUID | None]) -> None:
    """Policies stored one after another, each checked, always end; a chain without a circle is accepted."""
    step = Step(after_seconds=60, targets=(uuid4(),))
    known: dict[UUID, Policy] = {
        id_: Policy(policy_id=id_, name=str(id_.int), steps=(step,), next_id=None) for id_ in policy_ids
    }
    for id_, next_id in zip(policy_ids, links, strict=True):
        try:
            escalations.check_chain(id_, str(id_.int), next_id, known, "next")
        except Invalid as exc:
            assert exc.path == "next"
            walked, at = {id_}, next_id
            while at is not None and at not in walked:
                walked.add(at)
                at = known[at].next_id
            assert at is not None  # it was a circle
            continue
        known[id_] = msgspec.structs.replace(known[id_], next_id=next_id)
    for id_ in policy_ids:
        assert len(escalations.chain(id_, known)) <= len(policy_ids)


windows = st.builds(
    lambda start, length, days: Window(
        start=f"{start // 60:02}:{start % 60:02}",
        end=f"{(start + length) % 1440 // 60:02}:{(start + length) % 60:02}",
        days=tuple(days),
    ),
    st.integers(0, 1439),
    st.integers(1, 1439),
    st.lists(st.sampled_from(schedules.DAYS), min_size=1, max_size=7, unique=True),
)
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
moments = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))


@given(st.builds(lambda w, z: Schedule(windows=(w,), zone=z), windows, zones), moments)
def test_a_window_covers_what_the_clock_on_the_wall_shows(schedule: Schedule, at: datetime) -> None:
    """Compared with the wall clock read as a person does it, in zones with and without daylight saving."""
    from zoneinfo import ZoneInfo

    schedule.check("x")
    local = at.astimezone(ZoneInfo(schedule.zone))
    clock, window = local.strftime("%H:%M"), schedule.windows[0]
    today, yesterday = (schedules.DAYS[(local.weekday() - back) % 7] for back in (0, 1))
    if window.start < window.end:
        expected = today in window.days and window.start <= clock < window.end
    else:
        expected = (today in window.days and clock >= window.start) or (
            yesterday in window.days and clock < window.end
        )
    assert schedules.covers(schedule, at) == expected
    begins = schedules.next_covered(schedule, at)
    assert begins is not None
    assert begins >= at
    assert schedules.covers(schedule, begins)
    assert begins == at if expected else begins > at


members = st.lists(
    st.builds(
        lambda agent, name: NewMember(subject=Subject(UUID(int=agent), name), since=NOW),
        st.integers(0, 3),
        st.sampled_from("abcdefgh"),
    ),
    max_size=12,
    unique_by=lambda member: member.subject,
)
opened = st.lists(
    st.builds(
        lambda n, ago, agent: OpenIncident(
            incident_id=UUID(int=100 + n),
            grown_at=NOW - timedelta(seconds=ago),
            agents=(UUID(int=agent),),
            members=1,
        ),
        st.integers(0, 9),
        st.integers(0, 200),
        st.integers(0, 3),
    ),
    max_size=4,
    unique_by=lambda incident: incident.incident_id,
)


@given(members, opened, st.sampled_from(["series", "agent", "rule"]))
def test_each_new_member_is_placed_once(
    new: list[NewMember], known: list[OpenIncident], grouping: Grouping
) -> None:
    """In a new incident or in one that began or grew within a minute, and a storm opens at most one."""
    placed = incidents.place(new, known, grouping, NOW)
    assert sorted(str(m.subject) for _, group in placed for m in group) == sorted(str(m.subject) for m in new)
    recent = {i.incident_id for i in known if NOW - i.grown_at <= incidents.TOGETHER}
    assert {incident for incident, _ in placed if incident} <= recent
    if grouping == "rule" or len(new) >= incidents.STORM:
        assert len(placed) <= 1


@pytest.mark.parametrize(
    ("address", "allowed", "expected"),
    [
        *((text, "", False) for text in ("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254")),
        *((text, "", False) for text in ("0.0.0.0", "255.255.255.255", "224.0.0.1", "100.64.0.1", "192.0.2.1")),
        *((text, "", False) for text in ("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1")),
        *((text, "", False) for text in ("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "2002:7f00:1::")),
        *((text, "", False) for text in ("64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2001:0:4136:e378::", "x")),
        *((text, "", True) for text in ("93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34")),
        ("10.1.2.3", "10.1.0.0/16", True),
        ("10.2.2.3", "10.1.0.0/16", False),
        ("::ffff:10.1.2.3", "10.1.0.0/16, fd00::/8", True),
        ("fd00::1", "10.1.0.0/16, fd00::/8", True),
    ],
)
def test_only_public_and_allowed_addresses_are_called(address: str, allowed: str, expected: bool) -> None:
    """Private ones are refused in every disguise of IPv6."""
    assert addresses.is_allowed(address, addresses.parse_networks(allowed)) == expected


@given(st.integers(1, 40), st.floats(0, 1), st.one_of(st.none(), st.floats(0, 1e6)), st.integers(0, 100_000))
def test_a_retry_is_bounded(attempts: int, jitter: float, wanted: float | None, left: int) -> None:
    """It is never before now nor after the end, and there is none after the end."""
    expires = NOW + timedelta(seconds=left)
    at = retries.next_attempt(attempts, NOW, expires, retry_after=wanted, jitter=jitter)
    if left == 0:
        assert at is None
    else:
        assert at is not None
        assert NOW < at <= expires
        assert (at - NOW).total_seconds() <= retries.LONGEST * 1.25 + 1


AGENT = AgentFacts(agent_uuid=UUID(int=1), name="a", fleet_uuid=UUID(int=2), tags={"site": "berlin"})


@pytest.mark.parametrize(
    ("scope", "series", "expected"),
    [
        (Scope(), ("pump.flow", "flow", "pump"), True),
        (Scope(series="flow"), ("pump.flow", "flow", "pump"), True),
        (Scope(series="pump.*"), ("pump.flow", "flow", "pump"), True),
        (Scope(series="FLOW"), ("pump.flow", "flow", "pump"), False),
        (Scope(device="p?mp"), ("pump.flow", "flow", "pump"), True),
        (Scope(device="pump"), ("flow", "flow", None), False),
        (Scope(series="x[1]"), ("x[1]", "x[1]", None), True),
        (Scope(series="x[1]"), ("x1", "x1", None), False),
    ],
)
def test_a_scope_matches_names_and_patterns(
    scope: Scope, series: tuple[str, str, str | None], expected: bool
) -> None:
    """Brackets are letters like others, and a metric alone is enough."""
    assert scopes.has_series(scope, *series) == expected


def test_a_scope_matches_agents_by_everything_that_is_given() -> None:
    """Agent, fleet and tags must all fit."""
    fits = Scope(agent=UUID(int=1), fleet=UUID(int=2), tags="site=berlin,!spare")
    assert scopes.has_agent(fits, AGENT)
    for changed in ({"agent": UUID(int=9)}, {"fleet": UUID(int=9)}, {"tags": "site=oslo"}):
        assert not scopes.has_agent(msgspec.structs.replace(fits, **changed), AGENT)


def test_routes_by_severity_and_label() -> None:
    """One route that fits is enough; a target without routes is told nothing by itself."""
    spec = msgspec.convert(
        {
            "channel": {"kind": "webhook", "url": "https://example.com"},
            "routes": [{"minSeverity": "critical"}, {"labels": "site=berlin"}],
        },
        TargetSpec,
    )
    assert targets.when_told(spec, "critical", {}, NOW) == NOW
    assert targets.when_told(spec, "info", {"site": "berlin"}, NOW) == NOW
    assert targets.when_told(spec, "info", {"site": "oslo"}, NOW) is None
    assert targets.when_told(msgspec.structs.replace(spec, routes=()), "critical", {}, NOW) is None
