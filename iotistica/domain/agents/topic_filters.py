"""MQTT topic filters: whether a filter is well formed, what it covers, and what an account's rules allow."""

import re
from collections.abc import Iterable
from typing import Final, Literal

Access = Literal["read", "write", "readwrite"]

LONGEST: Final = 256  # characters of a filter in a rule
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
"""The form of the names of MQTT users that a tenant creates."""
_PLAIN: Final = re.compile(r"[!-~]+")  # printable ASCII without blanks: it becomes a line of Mosquitto's ACL file


def problem(topic: str) -> str | None:
    """Return why a topic filter is not allowed in a rule, as a predicate without subject, or None."""
    if not topic or len(topic) > LONGEST:
        return f"must have 1 to {LONGEST} characters"
    if not _PLAIN.fullmatch(topic):
        return "must consist of printable ASCII characters without blanks"
    if topic.startswith(("/", "$")):
        return "must be relative to i/{tenant}/ and not begin with / or $"
    parts = topic.split("/")
    if any("+" in part and part != "+" for part in parts):
        return "must use + only as a whole level"
    if any("#" in part for part in parts[:-1]) or ("#" in parts[-1] and parts[-1] != "#"):
        return "must use # only as the whole last level"
    return None


def covers(rule: str, asked: str) -> bool:
    """Whether everything that `asked` (a topic or a filter) can match is matched by `rule`."""
    if asked.startswith("$") and not rule.startswith("$"):
        return False  # wildcards do not match the broker's own topics (MQTT 5, section 4.7.2)
    rule_levels, asked_levels = rule.split("/"), asked.split("/")
    for level, part in enumerate(rule_levels):
        if part == "#":
            return True
        if level >= len(asked_levels):
            return False
        if asked_levels[level] == "#":
            return False
        if part != "+" and part != asked_levels[level]:
            return False
    return len(rule_levels) == len(asked_levels)


def allows(rules: Iterable[tuple[str, Access]], asked: str, wanted: Literal["read", "write"]) -> bool:
    """Whether the rules, whose topics are absolute, allow `wanted` access to the topic or filter `asked`."""
    return any(wanted in access and covers(topic, asked) for topic, access in rules)
