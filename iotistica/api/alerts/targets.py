"""Routes for the targets of notifications."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Router, delete, get, post, put
from litestar.params import FromPath, JSONBody

from iotistica.api.http import cursors
from iotistica.api.http.cursors import cut_page
from iotistica.api.http.dependencies import ApiRequest, DatabaseDep, ServerContext, ServerContextDep
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.api.http.inputs import Cursor, Limit, Name, convert
from iotistica.domain import names
from iotistica.domain.access.document_secrets import MASK
from iotistica.domain.alerts import notices
from iotistica.domain.alerts.notices import Kind
from iotistica.domain.alerts.targets import Apprise, Channel, Email, TargetSpec, Template, Webhook
from iotistica.errors import Invalid
from iotistica.settings import Settings
from iotistica.storage.alerts import notice_search, targets
from iotistica.storage.alerts import notices as outbox
from iotistica.storage.alerts.notices import Recipient
from iotistica.storage.alerts.targets import SealedTarget
from iotistica.storage.postgres import Database

MANAGE = {"permission": "alerts.targets"}
TEST_SECONDS: Final = 15.0  # seconds that a test waits for its result
LOOK_SECONDS: Final = 0.2  # seconds between looks for it


class TargetBody(TargetSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where messages go. A secret is shown as `********`; written back like that, it stays as it is."""

    name: Name
    enabled: bool = True


class TargetView(TargetSpec, frozen=True, kw_only=True, omit_defaults=False):
    target_id: UUID
    name: str
    enabled: bool
    author: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    targets: list[TargetView]
    count: int
    total: int
    next: str | None


class TestResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How a test ended; `status` is pending if no process has tried to deliver it within some seconds."""

    alert_id: str
    status: str
    status_code: int | None
    seconds: float | None
    error: str | None


class TemplateTrial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A template, and the kind of message to show it for."""

    template: Template = Template()
    kind: Kind = "opened"


class TemplateResult(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    text: str
    facts: dict[str, Any]
    """The names that a template can use, with the values of an example."""


@get("/", opt=MANAGE)
async def list_targets(
    request: ApiRequest,
    database: DatabaseDep,
    context: ServerContextDep,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Targets:
    """List the targets of notifications, ordered by id; their secrets are masked."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        rows = await targets.page(tx, tenant, after=cursors.parse_uuid(cursor), limit=limit + 1)
    page, more = cut_page(rows, limit, lambda row: str(row.target_id))
    views = [_view(row, context) for row in page]
    return Targets(targets=views, count=len(page), total=rows.total, next=more)


@post("/", opt=MANAGE, status_code=201)
async def add_target(
    request: ApiRequest, data: JSONBody[TargetBody], database: DatabaseDep, context: ServerContextDep
) -> TargetView:
    """Create a target. Send it a test message afterwards."""
    return await _put(request, data, database, context, None)


@get("/{target:uuid}", opt=MANAGE)
async def get_target(
    request: ApiRequest, database: DatabaseDep, context: ServerContextDep, target: FromPath[UUID]
) -> TargetView:
    """Return one target; its secrets are masked."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        return _view(await targets.get(tx, tenant, target), context)


@put("/{target:uuid}", opt=MANAGE)
async def put_target(
    request: ApiRequest,
    data: JSONBody[TargetBody],
    database: DatabaseDep,
    context: ServerContextDep,
    target: FromPath[UUID],
) -> TargetView:
    """Replace a target; masked secrets stay as they are."""
    return await _put(request, data, database, context, target)


@delete("/{target:uuid}", opt=MANAGE, status_code=204)
async def delete_target(request: ApiRequest, database: DatabaseDep, target: FromPath[UUID]) -> None:
    """Delete a target with its notices."""
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        await targets.delete(tx, tenant, target, by=actor_of(request))


@post("/{target:uuid}/test", opt=MANAGE, status_code=200)
async def test_target(request: ApiRequest, database: DatabaseDep, target: FromPath[UUID]) -> TestResult:
    """Send a test message the way that real ones go, and return how it ended."""
    tenant, now = tenant_of(request), datetime.now(UTC)
    async with database.transaction(tenant) as tx:
        await targets.get(tx, tenant, target)
        facts = notices.example("test", now, title_="Test message")
        (id_,) = await outbox.add(tx, tenant, facts, [Recipient(target, now, TEST_SECONDS)], now, incident=None)
    for _ in range(int(TEST_SECONDS / LOOK_SECONDS)):
        await asyncio.sleep(LOOK_SECONDS)
        async with database.transaction(tenant) as tx:
            found = await notice_search.get(tx, tenant, id_)
            attempts = await notice_search.attempts(tx, tenant, id_)
        if found.status != "pending":
            break
    last = attempts[0] if attempts else None
    return TestResult(
        alert_id=id_,
        status=found.status,
        status_code=last.status_code if last else None,
        seconds=last.seconds if last else None,
        error=found.last_error,
    )


@post("/preview", opt=MANAGE, status_code=200)
async def preview_template(data: JSONBody[TemplateTrial]) -> TemplateResult:
    """Return the title and text of a message by a template, for an example of an incident."""
    TargetSpec(channel=Email(to=("a@example.com",)), template=data.template).check()
    facts = notices.example(data.kind, datetime.now(UTC).replace(microsecond=0))
    return TemplateResult(
        title=notices.title(facts, data.template),
        text=notices.text(facts, data.template),
        facts=facts.builtins(),
    )


async def _put(
    request: ApiRequest, data: TargetBody, database: Database, context: ServerContext, target: UUID | None
) -> TargetView:
    tenant = tenant_of(request)
    async with database.transaction(tenant) as tx:
        old = await targets.get(tx, tenant, target) if target else None
        known = old.open(context.box) if old else None
        stored = await targets.put(
            *(tx, tenant, context.box, checked(data, known.channel if known else None, context.settings)),
            name=names.composed(data.name),
            is_enabled=data.enabled,
            old=old,
            by=actor_of(request),
        )
    return _view(stored, context)


def parse(body: object) -> TargetBody:
    """Return a target from decoded JSON; raises `Invalid` with the path of the field at fault."""
    return convert(body, TargetBody)


def checked(data: TargetBody, old: Channel | None, settings: Settings) -> TargetSpec:
    """Return the target to store, with the secrets of `old` for masks; raises `Invalid` for what cannot work."""
    spec = TargetSpec(**{name: getattr(data, name) for name in TargetSpec.__struct_fields__})
    spec = msgspec.structs.replace(spec, channel=_unmasked(spec.channel, old))
    spec.check()
    if isinstance(spec.channel, Apprise) and not settings.apprise:
        raise Invalid("is switched off; an administrator sets IOTISTICA_APPRISE", "channel.kind")
    return spec


def _unmasked(new: Channel, old: Channel | None) -> Channel:
    """Return a channel with the secrets of the old one in the places of masks; raises `Invalid` for others."""
    if isinstance(new, Webhook):
        before = old if isinstance(old, Webhook) else Webhook(url="")
        secrets = tuple(
            _kept(secret, dict(enumerate(before.signing_secrets)).get(number), f"channel.signingSecrets[{number}]")
            for number, secret in enumerate(new.signing_secrets)
        )
        headers = {
            name: _kept(value, before.headers.get(name), f"channel.headers.{name[:100]}")
            for name, value in new.headers.items()
        }
        key = new.routing_key and _kept(new.routing_key, before.routing_key, "channel.routingKey")
        return msgspec.structs.replace(new, signing_secrets=secrets, headers=headers, routing_key=key)
    if isinstance(new, Apprise) and new.url.endswith(MASK):
        return Apprise(url=_kept(MASK, old.url if isinstance(old, Apprise) else None, "channel.url"))
    return new


def _kept(new: str, old: str | None, path: str) -> str:
    if new != MASK:
        return new
    if old is None:
        raise Invalid("is masked, and there is no secret in this place yet; enter it", path)
    return old


def _masked(channel: Channel) -> Channel:
    match channel:
        case Webhook():
            return msgspec.structs.replace(
                channel,
                signing_secrets=(MASK,) * len(channel.signing_secrets),
                headers=dict.fromkeys(channel.headers, MASK),
                routing_key=MASK if channel.routing_key else None,
            )
        case Apprise():
            return Apprise(url=f"{channel.url.partition('://')[0]}://{MASK}")
        case _:
            return channel


def _view(target: SealedTarget, context: ServerContext) -> TargetView:
    spec = target.open(context.box)
    if spec is None:  # the server's key was replaced
        spec = TargetSpec(channel=Webhook(url="", headers={}), routes=())
    shown = msgspec.structs.replace(spec, channel=_masked(spec.channel))
    return TargetView(
        **{name: getattr(shown, name) for name in TargetSpec.__struct_fields__},
        target_id=target.target_id,
        name=target.name,
        enabled=target.is_enabled,
        author=target.author,
        created_at=target.created_at,
        updated_at=target.updated_at,
    )


router = Router(
    "/notifications/targets",
    route_handlers=[
        list_targets,
        add_target,
        get_target,
        put_target,
        delete_target,
        test_target,
        preview_template,
    ],
    tags=["alerts"],
)
