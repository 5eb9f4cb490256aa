"""Jobs: given to agents, taken once, answered, rolled out, and called off."""

import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from tests.devices import Device, key_for
from tests.serving import Served, until

DOCUMENT = {
    "version": "1.0",
    "steps": [{"action": {"name": "say", "type": "runCommand", "input": {"command": "id"}}}],
}


def gzipped(document: bytes) -> bytes:
    """Without a time stamp, since parameters name their tests."""
    return gzip.compress(document, mtime=0)


@pytest.fixture(scope="module")
def manager(server: Served) -> Iterator[httpx.Client]:
    server.add_tenant("jobs")
    yield server.login("jobs", "owner")


@pytest.fixture
def device(server: Served, manager: httpx.Client) -> Device:
    return Device(server).join(key_for(manager))


@pytest.fixture
def devices(server: Served, manager: httpx.Client) -> list[Device]:
    key = key_for(manager)
    return [Device(server).join(key) for _ in range(4)]


def execute(manager: httpx.Client, *agents: Device, **wanted: Any) -> dict[str, Any]:
    body = {"job_name": "a job", "job_document": DOCUMENT} | wanted
    body |= {"target_agents": [agent.uuid for agent in agents]} if agents else {}
    answer = manager.post("/jobs/execute", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()["job"]
    return made


def take(device: Device) -> httpx.Response:
    return device.get(f"/agents/{device.uuid}/jobs/next")


def taken(device: Device) -> dict[str, Any]:
    """The next job, as soon as the rollout has come to it."""
    answer = until(lambda: (a := take(device)).status_code == 200 and a, what="a job to take")
    found: dict[str, Any] = answer.json()
    return found


def say(device: Device, job: str, status: str, **facts: Any) -> httpx.Response:
    url = f"{device.base}/agents/{device.uuid}/jobs/{job}/status"
    headers = {"X-Device-API-Key": device.api_key}
    return httpx.patch(url, headers=headers, json={"status": status, **facts}, timeout=30)


def job(manager: httpx.Client, made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manager.get(f"/jobs/executions/{made['job_id']}").json()["job"]
    return found


def reaches(manager: httpx.Client, made: dict[str, Any], status: str) -> dict[str, Any]:
    found = until(lambda: (j := job(manager, made))["status"] == status and j, what=f"the job is {status}")
    assert isinstance(found, dict)
    return found


def of(manager: httpx.Client, device: Device, made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manager.get(f"/agents/{device.uuid}/jobs/{made['job_id']}").json()
    return found


def kinds(manager: httpx.Client, device: Device) -> list[str]:
    rows = manager.get(f"/agents/{device.uuid}/timeline").json()["happenings"]
    return [row["kind"] for row in reversed(rows) if row["kind"].startswith("job.")]


def back(server: Served, **minutes: int) -> None:
    """Let times lie so many minutes further back, and the platform have been there all along."""
    with psycopg.connect(server.runtime().database_url) as owner:
        owner.execute("UPDATE presence_watch SET since = since - interval '30 days'")
        for column, number in minutes.items():
            owner.execute(f"UPDATE agent_job_status SET {column} = {column} - interval '{number} minutes'")


def test_a_job_goes_its_way_by_http(manager: httpx.Client, device: Device) -> None:
    """Taken, reported on, ended; the same end again is no fault, another one is."""
    assert take(device).status_code == 404
    made = execute(manager, device, timeout_minutes=5)
    assert (made["status"], made["total"], made["counts"]["waiting"]) == ("QUEUED", 1, 1)
    found = taken(device)
    assert (found["job_id"], found["job_document"], found["timeout_seconds"]) == (made["job_id"], DOCUMENT, 300)
    assert take(device).status_code == 404
    assert say(device, found["job_id"], "IN_PROGRESS", executed_steps=1).json()["status"] == "IN_PROGRESS"
    end = {"exit_code": 0, "stdout": "x" * 100_000 + "the end", "status_details": {"progress": "100", "a": [1]}}
    assert say(device, found["job_id"], "succeeded", **end).json()["status"] == "SUCCEEDED"
    assert say(device, found["job_id"], "SUCCEEDED").status_code == 200
    assert say(device, found["job_id"], "FAILED").status_code == 409
    done = reaches(manager, made, "SUCCEEDED")
    assert (done["counts"]["succeeded"], done["completed_at"] is not None) == (1, True)
    mine = of(manager, device, made)
    assert (mine["exit_code"], mine["executed_steps"]) == (0, 1)
    assert mine["status_details"] == {"progress": "100", "a": [1]}
    assert mine["stdout"].endswith("the end")
    assert "characters left out" in mine["stdout"]
    assert len(mine["stdout"]) <= 64 << 10
    assert kinds(manager, device) == ["job.queued", "job.started", "job.succeeded"]
    assert [row["job_id"] for row in manager.get(f"/agents/{device.uuid}/jobs").json()["jobs"]] == [made["job_id"]]


def test_of_twenty_callers_one_gets_it(manager: httpx.Client, device: Device) -> None:
    """At once; the others are told that there is none."""
    made = execute(manager, device)
    until(lambda: job(manager, made)["counts"]["queued"] == 1, what="it is released")
    with ThreadPoolExecutor(20) as pool:
        codes = sorted(answer.status_code for answer in pool.map(take, [device] * 20))
    assert codes == [200] + [404] * 19
    assert of(manager, device, made)["execution_number"] == 1


def test_a_job_goes_its_way_by_mqtt(manager: httpx.Client, device: Device) -> None:
    """Told on both names, asked for, answered; a question that finds none is answered too."""
    base = device.topic
    with device.connect() as client:
        for name in ("notify", "notify-next", "start-next/accepted", "start-next/rejected"):
            client.subscribe(f"{base}/jobs/{name}")
        made = execute(manager, device)
        told = [json.loads(content) for content in client.messages(2)]
        assert [one["execution"]["jobId"] for one in told] == [made["job_id"]] * 2
        assert (told[0]["execution"]["status"], told[0]["execution"]["jobDocument"]) == ("QUEUED", DOCUMENT)
        client.publish(f"{base}/jobs/start-next", b'{"clientToken":"one"}')
        (accepted,) = (json.loads(content) for content in client.messages(1))
        assert accepted["execution"] | {"jobId": made["job_id"], "status": "IN_PROGRESS"} == accepted["execution"]
        assert accepted["clientToken"] == "one"
        client.publish(f"{base}/jobs/start-next", b"")
        (rejected,) = (json.loads(content) for content in client.messages(1))
        assert (rejected["clientToken"], "timestamp" in rejected, len(rejected)) == (None, True, 2)
        update = {"status": "FAILED", "statusDetails": {"reason": "no disk", "exitCode": 7}, "executionNumber": 1}
        client.publish(f"{base}/jobs/{made['job_id']}/update", json.dumps(update).encode())
        reaches(manager, made, "FAILED")
        mine = of(manager, device, made)
        assert (mine["status"], mine["reason"], mine["exit_code"]) == ("FAILED", "no disk", 7)
        client.publish(f"{base}/jobs/{uuid4()}/update", b'{"status":"SUCCEEDED"}')
        client.publish(f"{base}/jobs/{made['job_id']}/update", b'{"status":"ROUGHLY"}')
    letters = until(
        lambda: len(f := manager.get("/ingestion/dead-letters").json()["deadLetters"]) == 2 and f,
        what="dead letters",
    )
    assert {letter["reason"] for letter in letters} == {"unknown_job", "unknown_shape"}


def test_one_that_failed_is_tried_again(manager: httpx.Client, device: Device) -> None:
    """As often as was said; what an earlier execution still says is refused."""
    made = execute(manager, device, retries=1, retry_delay_seconds=0)
    first = taken(device)
    assert say(device, made["job_id"], "FAILED", reason="once").json()["status"] == "QUEUED"
    second = taken(device)
    assert (first["execution_number"], second["execution_number"]) == (1, 2)
    assert say(device, made["job_id"], "SUCCEEDED", execution_number=1).status_code == 409
    assert say(device, made["job_id"], "FAILED", reason="twice").json()["status"] == "FAILED"
    reaches(manager, made, "FAILED")
    assert of(manager, device, made)["reason"] == "twice"


def test_the_silent_are_given_up(server: Served, manager: httpx.Client, devices: list[Device]) -> None:
    """One that never begins and one that never ends; what is heard of such a one later is believed."""
    never, slow, *_ = devices
    made = execute(manager, never, slow, timeout_minutes=1, start_timeout_minutes=1)
    taken(slow)
    until(lambda: of(manager, never, made)["notified_at"], what="the other one is told")
    back(server, notified_at=2, started_at=2)
    done = reaches(manager, made, "FAILED")
    assert done["counts"]["timed_out"] == 2
    assert of(manager, never, made)["reason"] == "did not start within 1 minutes"
    assert of(manager, slow, made)["reason"] == "did not end within 1 minutes"
    assert kinds(manager, never)[-1] == "job.unbegun"
    assert say(slow, made["job_id"], "SUCCEEDED", stdout="late").json()["status"] == "SUCCEEDED"
    until(lambda: job(manager, made)["counts"]["succeeded"] == 1, what="the late one counts")
    assert job(manager, made)["status"] == "FAILED"


def test_a_rollout_stops_at_its_canary(manager: httpx.Client, devices: list[Device]) -> None:
    """It fails, nobody else is told, and the job says why."""
    made = execute(manager, *devices, rollout={"canary": 1})
    first = until(lambda: job(manager, made)["counts"]["queued"] == 1, what="the canary is told")
    assert first
    statuses = manager.get(f"/jobs/executions/{made['job_id']}/agents").json()["device_statuses"]
    (canary,) = [row["agent_uuid"] for row in statuses if row["is_canary"]]
    (device,) = [one for one in devices if one.uuid == canary]
    assert all(take(one).status_code == 404 for one in devices if one is not device)
    taken(device)
    say(device, made["job_id"], "REJECTED", reason="not me")
    done = reaches(manager, made, "ABORTED")
    assert done["reason"] == "1 of 1 canaries did not succeed; at least 100 % must succeed"
    assert (done["counts"]["canceled"], done["counts"]["failed"]) == (3, 1)
    (other, *_) = [one for one in devices if one is not device]
    assert of(manager, other, made)["reason"] == f"the job was stopped: {done['reason']}"
    assert all(take(one).status_code == 404 for one in devices)


def test_the_rest_follows_a_canary_that_succeeded(manager: httpx.Client, devices: list[Device]) -> None:
    """And an abort rule that is not reached calls nothing off."""
    rule = [{"on": "failures", "percent": 50, "min_agents": 3}]
    made = execute(manager, *devices, rollout={"canary": 1, "rate_per_minute": 600}, abort=rule)
    left = list(devices)
    while left:
        for device in list(left):
            if take(device).status_code == 200:
                say(device, made["job_id"], "FAILED" if len(left) == 1 else "SUCCEEDED")
                left.remove(device)
    done = reaches(manager, made, "FAILED")
    assert (done["counts"]["succeeded"], done["counts"]["failed"], done["reason"]) == (3, 1, None)


def test_a_job_is_paused_resumed_and_canceled(manager: httpx.Client, devices: list[Device]) -> None:
    """Nobody begins one that is paused; a cancel leaves those alone that have begun, unless by force."""
    one, two, *_ = devices
    made = execute(manager, one, two)
    until(lambda: job(manager, made)["counts"]["queued"] == 2, what="it is released")
    path = f"/jobs/executions/{made['job_id']}"
    assert manager.post(f"{path}/resume").status_code == 409
    assert manager.post(f"{path}/pause").json()["status"] == "PAUSED"
    assert take(one).status_code == 404
    assert manager.post(f"{path}/resume").json()["status"] == "IN_PROGRESS"
    taken(one)
    assert manager.delete(f"/jobs/{made['job_id']}").status_code == 409
    assert manager.post(f"{path}/cancel", json={"reason": "enough"}).json()["status"] == "CANCELED"
    until(lambda: job(manager, made)["counts"]["canceled"] == 1, what="one is canceled")
    assert take(two).status_code == 404
    assert of(manager, two, made)["reason"] == "enough"
    assert manager.post(f"/agents/{one.uuid}/jobs/{made['job_id']}/cancel").status_code == 409
    forced = manager.post(f"/agents/{one.uuid}/jobs/{made['job_id']}/cancel?force=true")
    assert forced.json()["status"] == "CANCELED"
    assert say(one, made["job_id"], "SUCCEEDED").status_code == 409
    until(lambda: job(manager, made)["counts"]["in_progress"] == 0, what="nobody works on it")
    assert manager.delete(f"/jobs/{made['job_id']}").status_code == 204
    assert manager.get(path).status_code == 404


def test_whom_a_job_is_for(manager: httpx.Client, devices: list[Device]) -> None:
    """A fleet, tags in either form, or all; who is set aside is left out, and named where it was named."""
    one, two, three, four = devices
    fleet = manager.post("/fleets", json={"name": f"fleet {uuid4()}"}).json()["fleetUuid"]
    manager.post(f"/fleets/{fleet}/agents", json={"agents": [one.uuid, two.uuid]})
    for device in (two, three):
        manager.put(f"/agents/{device.uuid}/tags", json={"tags": {"site": fleet}})
    manager.patch(f"/agents/{four.uuid}/active", json={"is_active": False})

    def meant(**wanted: Any) -> set[str]:
        made = execute(manager, **wanted)
        rows = manager.get(f"/jobs/executions/{made['job_id']}/agents").json()["device_statuses"]
        manager.post(f"/jobs/executions/{made['job_id']}/cancel")
        return {row["agent_uuid"] for row in rows}

    assert meant(fleet_uuid=fleet) == {one.uuid, two.uuid}
    assert meant(fleet_uuid=fleet, selector=f"site={fleet}", target_type="group") == {two.uuid}
    assert meant(target_filter={"site": fleet}) == {two.uuid, three.uuid}
    assert {d.uuid for d in devices} & meant(target_type="all") == {one.uuid, two.uuid, three.uuid}
    named = {"job_name": "x", "job_document": {}, "target_agents": [three.uuid, four.uuid]}
    made = manager.post("/jobs/execute", json=named).json()
    assert made["skipped"] == [{"agent_uuid": four.uuid, "reason": "the agent is not active"}]
    manager.post(f"/jobs/executions/{made['job']['job_id']}/cancel")


def test_a_job_is_made_of_templates(manager: httpx.Client, device: Device) -> None:
    """One upon another, with what the job itself says merged in; a change of them changes no job."""

    def add(name: str, document: dict[str, Any], **more: Any) -> dict[str, Any]:
        answer = manager.post("/jobs/templates", json={"name": name, "job_document": document, **more})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    base = add("base", {"a": 1, "b": {"c": 2, "d": 3}, "gone": True}, category="test")
    over = add("over", {"b": {"c": 20}, "gone": None}, extends=base["template_id"])
    made = execute(manager, device, job_document={"e": 5}, template_id=over["template_id"])
    assert job(manager, made)["job_document"] == {"a": 1, "b": {"c": 20, "d": 3}, "e": 5}
    path = f"/jobs/templates/{over['template_id']}"
    assert manager.patch(path, json={"job_document": {"f": 6}}).json()["job_document"] == {"f": 6}
    assert job(manager, made)["job_document"]["b"]["c"] == 20
    assert [t["name"] for t in manager.get("/jobs/templates", params={"category": "test"}).json()["templates"]] == [
        "base"
    ]
    assert manager.post("/jobs/templates", json={"name": "base", "job_document": {}}).status_code == 409
    assert manager.delete(f"/jobs/templates/{base['template_id']}").status_code == 409
    circle = manager.patch(f"/jobs/templates/{base['template_id']}", json={"extends": over["template_id"]})
    assert (circle.status_code, circle.json()["errors"][0]["path"]) == (400, "extends")
    assert "base → over → base" in circle.json()["detail"]
    itself = manager.patch(path, json={"extends": over["template_id"]})
    assert (itself.status_code, "circle" in itself.json()["detail"]) == (400, True)
    assert manager.get(path).json()["extends"] == base["template_id"]
    assert manager.patch(path, json={"is_active": False}).json()["is_active"] is False
    body = {"job_name": "x", "template_id": over["template_id"], "target_agents": [device.uuid]}
    assert "not active" in manager.post("/jobs/execute", json=body).json()["detail"]
    assert manager.delete(path).status_code == 204
    manager.post(f"/jobs/executions/{made['job_id']}/cancel")


def test_what_is_no_job_is_refused(manager: httpx.Client, device: Device) -> None:
    """With the path of the fault, and nothing is written."""
    right: dict[str, Any] = {"job_name": "x", "job_document": {}, "target_agents": [device.uuid]}
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"a": deep}
    for wrong, path in (
        ({"job_document": "reboot"}, "job_document"),
        ({"job_document": [1]}, "job_document"),
        ({"job_document": None}, "job_document"),
        ({"job_document": {"a": "x" * 40_000}}, "job_document"),
        ({"job_document": deep}, "job_document"),
        ({"template_id": str(uuid4())}, "template_id"),
        ({"target_agents": [device.uuid, str(uuid4())]}, "target_agents.1"),
        ({"target_agents": None}, "target_type"),
        ({"target_type": "all"}, "target_type"),
        ({"selector": "a=b"}, "target_agents"),
        ({"target_agents": None, "fleet_uuid": str(uuid4())}, "fleet_uuid"),
        ({"target_agents": None, "selector": "nobody=here"}, "target_type"),
        ({"target_agents": None, "selector": "a b c"}, "selector"),
        ({"schedule": {"scheduled_at": "2999-01-01T00:00:00Z"}}, "schedule.scheduled_at"),
        ({"rollout": {"rate_per_minute": 0}}, "rollout.rate_per_minute"),
        ({"abort": [{"percent": 101}]}, "abort.0.percent"),
        ({"retries": 11}, "retries"),
    ):
        refused = manager.post("/jobs/execute", json=right | wrong)
        paths = [error["path"] for error in refused.json().get("errors", [])]
        assert (refused.status_code, [p.replace("[", ".").replace("]", "") for p in paths]) == (400, [path]), (
            refused.text
        )
    assert manager.get(f"/agents/{device.uuid}/jobs").json()["jobs"] == []
    made = execute(manager, device)
    taken(device)
    body: object
    for body in (
        [],
        "x",
        {"status": "ROUGHLY"},
        {"status": 1},
        {"exit_code": 0},
    ):
        url = f"{device.base}/agents/{device.uuid}/jobs/{made['job_id']}/status"
        refused = httpx.patch(url, headers={"X-Device-API-Key": device.api_key}, json=body)
        assert refused.status_code == 400, refused.text
    assert of(manager, device, made)["status"] == "IN_PROGRESS"


@pytest.mark.parametrize(
    ("body", "exit_code", "steps", "details"),
    [
        ({"exit_code": 3221225477}, 3221225477, None, None),
        ({"exit_code": "1"}, 1, None, None),
        ({"exitCode": 1.0, "executedSteps": "3"}, 1, 3, None),
        ({"exit_code": "x", "executed_steps": 1.5}, None, None, {"exit_code": "x", "executed_steps": 1.5}),
        ({"exit_code": True}, None, None, {"exit_code": True}),
        ({"exit_code": 1 << 70}, None, None, {"exit_code": str(1 << 70)}),
        ({"stdout": ["a", "b"], "exit_code": 0}, 0, None, {"stdout": ["a", "b"]}),
        ({"reason": {"code": 5}}, None, None, {"reason": {"code": 5}}),
        ({"status_details": {"exit_code": "2", "stderr": ["e"]}}, 2, None, {"stderr": ["e"]}),
        ({"status_details": "ended", "executed_steps": None}, None, None, {"message": "ended"}),
        ({"execution_number": "first"}, None, None, {"execution_number": "first"}),
        (
            {"exit_code": 9, "status_details": {"lines": [0] * 6000}},
            9,
            None,
            {"leftOut": "objects and lists: the answer has more than 5000 values"},
        ),
    ],
)
def test_an_end_is_an_end_whatever_stands_beside_it(
    manager: httpx.Client,
    device: Device,
    body: dict[str, Any],
    exit_code: int | None,
    steps: int | None,
    details: dict[str, Any] | None,
) -> None:
    """A side field of another type is kept with the details, and the job ends."""
    made = execute(manager, device)
    id_ = taken(device)["job_id"]
    answer = say(device, id_, "FAILED", **body)
    assert (answer.status_code, answer.json()["status"]) == (200, "FAILED")
    found = of(manager, device, made)
    assert (found["exit_code"], found["executed_steps"], found["status_details"]) == (exit_code, steps, details)


@pytest.mark.parametrize(
    ("payload", "stdout"),
    [
        (b'{"status": "succeeded ", "stdout": "cut \\ud83d"}', "cut \ufffd"),
        (b'{"status": "SUCCESS", "stdout": "k\xe4lte"}', "k\ufffdlte"),
        (b'\xef\xbb\xbf{"status": "SUCCEEDED", "stdout": "x", "exit_code": NaN}\0', "x"),
        (gzipped(b'{"status": "COMPLETED", "stdout": "x"}'), "x"),
    ],
)
def test_an_end_is_read_whatever_its_characters(
    manager: httpx.Client, device: Device, payload: bytes, stdout: str
) -> None:
    """By HTTP as by MQTT: half a surrogate pair, Latin-1, NaN, a byte order mark, and other spellings of an end."""
    for way in ("http", "mqtt"):
        made = execute(manager, device)
        id_ = taken(device)["job_id"]
        if way == "http":
            url = f"{device.base}/agents/{device.uuid}/jobs/{id_}/status"
            answer = httpx.patch(url, headers={"X-Device-API-Key": device.api_key}, content=payload)
            assert answer.status_code == 200, answer.text
        else:
            with device.connect() as client:
                client.publish(f"{device.topic}/jobs/{id_}/update", payload)
        until(lambda: of(manager, device, made)["status"] == "SUCCEEDED", 10)  # noqa: B023
        assert of(manager, device, made)["stdout"] == stdout


def test_an_agent_that_is_listed_twice_is_one(manager: httpx.Client, device: Device) -> None:
    """In the total, in the target and in the message."""
    body = {"job_name": "twice", "job_document": {"steps": []}, "target_agents": [device.uuid, device.uuid.upper()]}
    made = manager.post("/jobs/execute", json=body).json()
    assert (made["job"]["total"], made["job"]["target"]["agents"]) == (1, 1)
    assert made["message"] == "The job is for 1 agent."


def test_a_job_waits_for_its_time(server: Served, manager: httpx.Client, device: Device) -> None:
    """One that is scheduled is taken by nobody before, and by itself then."""
    at = datetime.now(UTC) + timedelta(hours=1)
    made = execute(manager, device, schedule={"scheduled_at": at.isoformat()})
    now = execute(manager, device)
    assert taken(device)["job_id"] == now["job_id"]
    assert (take(device).status_code, job(manager, made)["status"]) == (404, "QUEUED")
    with psycopg.connect(server.runtime().database_url) as owner:
        owner.execute("UPDATE job_executions SET scheduled_at = now() WHERE job_id = %s", [made["job_id"]])
    assert taken(device)["job_id"] == made["job_id"]


def test_an_end_that_is_told_again_is_the_end_of_the_same_execution(manager: httpx.Client, device: Device) -> None:
    """A broker delivers again, a client repeats its call: no try is lost by it, and what was left out is added."""
    made = execute(manager, device, retries=1, retry_delay_seconds=60)
    id_ = taken(device)["job_id"]
    assert say(device, id_, "FAILED", reason="no disk").json()["status"] == "QUEUED"
    assert say(device, id_, "FAILED").json()["status"] == "QUEUED"
    assert say(device, id_, "IN_PROGRESS").json()["status"] == "QUEUED"
    found = of(manager, device, made)
    assert (found["status"], found["execution_number"]) == ("QUEUED", 2)
    assert say(device, id_, "SUCCEEDED").json()["status"] == "SUCCEEDED"  # the first one did it after all
    assert say(device, id_, "SUCCEEDED", exit_code=0, stdout="done").status_code == 200
    found = of(manager, device, made)
    assert (found["exit_code"], found["stdout"]) == (0, "done")


def test_a_question_that_comes_again_gets_the_same_job(manager: httpx.Client, device: Device) -> None:
    """By its token; another one gets the next job."""
    first, second = execute(manager, device, job_name="one"), execute(manager, device, job_name="two")
    for made in (first, second):
        until(lambda: of(manager, device, made)["released_at"])  # noqa: B023 called at once
    with device.connect() as client:
        client.subscribe(f"{device.topic}/jobs/start-next/accepted")
        answers = []
        for token in ("a", "a", "b"):
            client.publish(f"{device.topic}/jobs/start-next", json.dumps({"clientToken": token}).encode())
            (accepted,) = (json.loads(content) for content in client.messages(1))
            answers.append(accepted["execution"]["jobId"])
    assert answers == [first["job_id"], first["job_id"], second["job_id"]]


def test_who_is_locked_out_holds_up_no_rollout(manager: httpx.Client, devices: list[Device]) -> None:
    """Its jobs end at once; a rollout whose only canary it was is called off."""
    made = execute(manager, *devices, rollout={"canary": 1})
    rows = f"/jobs/executions/{made['job_id']}/agents"
    canary = next(row for row in manager.get(rows).json()["device_statuses"] if row["is_canary"])["agent_uuid"]
    assert manager.post(f"/agents/{canary}/revoke").status_code == 200
    found = manager.get(f"/agents/{canary}/jobs/{made['job_id']}").json()
    assert (found["status"], found["reason"]) == ("CANCELED", "the agent was revoked")
    assert "canary" in reaches(manager, made, "ABORTED")["reason"]


def test_a_word_that_is_misspelt_drops_no_safety_net(manager: httpx.Client, device: Device) -> None:
    """The path of what nobody knows is named, and no job is made."""
    for wrong, path in (
        ({"aborts": []}, "aborts"),
        ({"rollout": {"rate": 5}}, "rollout.rate"),
        ({"abort": [{"percent": 5, "minimum": 1}]}, "abort[0].minimum"),
        ({"timeout_minute": 5}, "timeout_minute"),
    ):
        body: dict[str, object] = {"job_name": "x", "job_document": {}, "target_agents": [device.uuid], **wrong}
        answer = manager.post("/jobs/execute", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, path), answer.text
    empty = manager.post("/jobs/execute")
    assert (empty.status_code, "A JSON body is required." in empty.text) == (400, True)
    assert manager.get(f"/agents/{device.uuid}/jobs").json()["jobs"] == []


def test_the_platforms_own_absence_is_no_silence(server: Served, manager: httpx.Client, device: Device) -> None:
    """Whoever takes over first finds out since when anybody listens."""
    made = execute(manager, device, timeout_minutes=1)
    taken(device)
    with psycopg.connect(server.runtime().database_url) as owner:
        owner.execute("UPDATE presence_watch SET looked_at = now() - interval '10 minutes'")
        owner.execute("UPDATE agent_job_status SET started_at = now() - interval '9 minutes'")
        # The look of a second later resets `since`; a step that did not wait for it would give the agent up.
    until(lambda: _looked(server), what="presence was looked at")
    assert of(manager, device, made)["status"] == "IN_PROGRESS"


def _looked(server: Served) -> bool:
    with psycopg.connect(server.runtime().database_url) as owner:
        row = owner.execute("SELECT since > now() - interval '1 minute' FROM presence_watch").fetchone()
    return bool(row and row[0])


def test_an_aborted_job_is_given_up_by_force(manager: httpx.Client, devices: list[Device]) -> None:
    """So that it can be forgotten; without force it says how."""
    rule = [{"on": "failures", "percent": 50}]
    made = execute(manager, *devices, abort=rule)
    first, second = taken(devices[0]), taken(devices[1])
    assert say(devices[0], first["job_id"], "FAILED").status_code == 200
    reaches(manager, made, "ABORTED")
    path = f"/jobs/executions/{made['job_id']}/cancel"
    refused = manager.post(path)
    assert (refused.status_code, "force" in refused.text) == (409, True)
    assert manager.post(path, json={"force": True}).json()["status"] == "ABORTED"
    assert of(manager, devices[1], made)["status"] == "CANCELED"
    assert say(devices[1], second["job_id"], "SUCCEEDED").status_code == 409
    until(lambda: manager.delete(f"/jobs/{made['job_id']}").status_code == 204)
