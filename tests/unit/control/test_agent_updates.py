"""Tests of update commands, and of the status of an update after each answer."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.control import agent_updates
from iotistica.domain.control.agent_updates import OPEN, STATUS_BY_ANSWER, Status, UpdateCommand

AT = datetime(2026, 5, 1, 8, 0, 0, 123000, tzinfo=UTC)
MS = 1_777_622_400_123


@pytest.mark.parametrize(
    ("changed", "signed"),
    [
        ({}, f"update|1.0.548|{MS}|{MS + 60_000}||"),
        ({"force": True}, f"update|1.0.548|{MS}|{MS + 60_000}||true"),
        ({"scheduled_at": AT}, f"update|1.0.548|{MS}|{MS + 60_000}|2026-05-01T08:00:00.123Z|"),
    ],
)
def test_a_command_is_signed_over_what_the_agent_checks(changed: dict[str, Any], signed: str) -> None:
    """An absent field is signed as an empty string, and a boolean as in JavaScript."""
    command = UpdateCommand(version="1.0.548", issued_at=AT, expires_at=AT + timedelta(minutes=1), **changed)
    content = json.loads(agent_updates.payload(command, "a secret"))
    assert content["signature"] == hmac.new(b"a secret", signed.encode(), hashlib.sha256).hexdigest()
    assert (content["action"], content["issued_at"]) == ("update", MS)
    assert "signature" not in json.loads(agent_updates.payload(command, ""))


@given(st.lists(st.sampled_from([*STATUS_BY_ANSWER, "something else"]), max_size=12))
def test_an_update_only_goes_on_and_ends_once(answers: list[str]) -> None:
    """For any sequence of answers, repeated ones included."""
    status: Status = "commanded"
    for answer in answers:
        new = agent_updates.status_after(status, answer)
        if new is None:
            continue
        assert status in OPEN
        assert new not in OPEN or OPEN.index(new) > OPEN.index(status)
        assert agent_updates.status_after(new, answer) is None
        status = new


def test_an_answer_from_before_the_command_is_none_to_it() -> None:
    """The broker retains the last answer and delivers it again with each new session."""
    assert agent_updates.answers_command(AT + timedelta(seconds=5), AT)
    assert agent_updates.answers_command(AT - timedelta(minutes=5), AT)
    assert agent_updates.answers_command(None, AT)
    assert not agent_updates.answers_command(AT - timedelta(minutes=11), AT)


@pytest.mark.parametrize("version", ["1.0.548", "2.1", "1.0.0-rc.1", "latest"])
def test_a_version_is_known_as_one(version: str) -> None:
    """A version consists of numbers, or is `latest`."""
    assert agent_updates.VERSION.fullmatch(version)
    assert not agent_updates.VERSION.fullmatch(version + "; reboot")
