"""Topic filters: which are well formed, what one covers, and what an account of the broker may."""

import re
from collections.abc import Iterable
from typing import Final, Literal

Access = Literal["read", "write", "readwrite"]

LONGEST: Final = 256  # characters of a filter in a rule
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
"""Names of a tenant's own MQTT users."""
_PLAIN: Final = re.compile(r"[!-~]+")  # printable ASCII without blanks: it becomes a line of Mosquitto's file


def problem(topic: str) -> str | None:
    """Why a filter cannot stand in a rule, or None."""
    if not topic or len(topic) > LONGEST:
        return f"a topic has 1 to {LONGEST} characters"
    if not _PLAIN.fullmatch(topic):
        return "a topic has printable ASCII characters only, and no blanks"
    if topic.startswith(("/", "$")):
        return "a topic lies below i/{tenant}/ and begins with neither / nor $"
    parts = topic.split("/")
    if any("+" in part and part != "+" for part in parts):
        return "+ stands for a whole level"
    if any("#" in part for part in parts[:-1]) or ("#" in parts[-1] and parts[-1] != "#"):
        return "# stands alone at the end"
    return None


def covers(rule: str, asked: str) -> bool:
    """Whether everything that `asked` (a topic or a filter) can match is matched by `rule`."""
    if asked.startswith("$") and not rule.startswith("$"):
        return False  # wildcards leave the broker's own topics out (MQTT 5, section 4.7.2)
    own, theirs = rule.split("/"), asked.split("/")
    for level, part in enumerate(own):
        if part == "#":
            return True
        if level >= len(theirs):
            return False
        if theirs[level] == "#":
            return False
        if part != "+" and part != theirs[level]:
            return False
    return len(own) == len(theirs)


def allows(rules: Iterable[tuple[str, Access]], asked: str, wanted: Literal["read", "write"]) -> bool:
    """Whether rules of whole topics allow to read or write what is asked."""
    return any(wanted in access and covers(topic, asked) for topic, access in rules)
