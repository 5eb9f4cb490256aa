"""Routes for brokers that check accounts over HTTP (EMQX, mosquitto-go-auth).

They apply the same accounts and rules as the embedded Mosquitto.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Response, Router, post
from litestar.params import JSONBody
from msgspec import Meta

from iotistica.api.http.dependencies import PlatformDatabaseDep, ServerContext, ServerContextDep, TimelineCountsDep
from iotistica.domain.access.permissions import BROKER
from iotistica.domain.agents import topic_filters
from iotistica.domain.agents.broker_passwords import SERVICE_USER, password_fits, password_line, service_password
from iotistica.domain.agents.topic_filters import Access
from iotistica.domain.ids import agent_of_user, encode_tenant
from iotistica.domain.key_derivation import derive
from iotistica.storage.agents import broker_accounts
from iotistica.storage.agents.broker_accounts import Account
from iotistica.storage.history.timeline_counts import TimelineCounts
from iotistica.storage.postgres import Database

Text = Annotated[str, Meta(max_length=1024)]
ACC: Final[dict[str, tuple[Literal["read", "write"], ...]]] = {
    "1": ("read",),
    "2": ("write",),
    "3": ("read", "write"),
    "4": ("read",),
}
"""The `acc` numbers of mosquitto-go-auth: read, write, both, and subscribe."""


class BrokerLogin(msgspec.Struct, frozen=True, kw_only=True):
    username: Text
    password: Text = ""


class BrokerUser(msgspec.Struct, frozen=True, kw_only=True):
    username: Text


class BrokerQuestion(msgspec.Struct, frozen=True, kw_only=True):
    username: Text
    topic: Text
    acc: int | Text | None = None
    action: Literal["publish", "subscribe"] | None = None


@post("/user", opt={"permission": BROKER}, status_code=200)
async def user(
    data: JSONBody[BrokerLogin],
    platform_database: PlatformDatabaseDep,
    context: ServerContextDep,
    timeline_counts: TimelineCountsDep,
) -> Response[dict[str, Any]]:
    """Check a user name and password: 200 if the account may connect, 403 otherwise."""
    account = await _account(platform_database, context, data.username)
    line = account.line if account else _decoy(context)
    allowed = password_fits(line, data.password) and account is not None
    if account is not None and (agent := agent_of_user(data.username)):
        kind, details = ("broker.let_in", {}) if allowed else ("broker.refused", {"reason": "a wrong password"})
        timeline_counts.add(*agent, kind, details)
    return _answer(allowed)


@post("/superuser", opt={"permission": BROKER}, status_code=200)
async def superuser(data: JSONBody[BrokerUser]) -> Response[dict[str, Any]]:
    """Answer 403: no account is a superuser, not even the one of the platform's intake."""
    return _answer(allowed=False)


@post("/acl", opt={"permission": BROKER}, status_code=200)
async def acl(
    data: JSONBody[BrokerQuestion],
    platform_database: PlatformDatabaseDep,
    context: ServerContextDep,
    timeline_counts: TimelineCountsDep,
) -> Response[dict[str, Any]]:
    """Check whether an account may read, write or subscribe to a topic: 200 if it may, 403 otherwise.

    Denials of an agent are recorded on its timeline.
    """
    account = await _account(platform_database, context, data.username)
    wanted = _wanted(data)
    if account is None or not wanted:
        return _answer(allowed=False)
    rules = _rules(account)
    allowed = all(topic_filters.allows(rules, data.topic, access) for access in wanted)
    if not allowed:
        _note(timeline_counts, data, wanted)
    return _answer(allowed)


def _note(timeline_counts: TimelineCounts, data: BrokerQuestion, wanted: Sequence[str]) -> None:
    agent = agent_of_user(data.username)
    if agent is not None:
        details = {"topic": data.topic, "access": " and ".join(wanted)}
        timeline_counts.add(*agent, "broker.denied", details, word=data.topic[:100])


async def _account(platform_database: Database, context: ServerContext, username: str) -> Account | None:
    if username == SERVICE_USER:
        line = password_line(username, service_password(context.key, username), derive(context.key, "salt")[:12])
        return Account(username=username, line=line, tenant_id=None, rules=None)
    if "\0" in username:
        return None
    async with platform_database.transaction() as tx:
        return await broker_accounts.find(tx, username)


def _rules(account: Account) -> list[tuple[str, Access]]:
    if account.username == SERVICE_USER:
        return [("#", "readwrite"), ("$SYS/#", "read")]
    # The same access that the pattern lines in Mosquitto's ACL file give to every account.
    own: list[tuple[str, Access]] = [
        (f"i/{account.username}/#", "readwrite"),
        (f"{account.username}/#", "readwrite"),
    ]
    if account.tenant_id is not None and account.rules is not None:
        root = f"i/{encode_tenant(account.tenant_id)}/"
        return [*own, *((root + rule.topic, rule.access) for rule in account.rules)]
    return own


def _wanted(question: BrokerQuestion) -> tuple[Literal["read", "write"], ...]:
    if question.action is not None:
        return ("write",) if question.action == "publish" else ("read",)
    return ACC.get(str(question.acc), ())


def _decoy(context: ServerContext) -> str:
    return password_line(
        "nobody", hashlib.sha256(hmac.digest(context.key, b"decoy", "sha256")).hexdigest(), b"0" * 12
    )


def _answer(allowed: bool) -> Response[dict[str, Any]]:
    body = {"result": "allow" if allowed else "deny", "is_superuser": False}
    return Response(body, status_code=200 if allowed else 403)


router = Router("/mosquitto-auth", route_handlers=[user, superuser, acl], tags=["mqtt"])
