"""Versions of a target: made of the one before, checked, sealed, written, and shown."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Response

from iotistica.api.http.dependencies import ApiRequest, ServerContext
from iotistica.api.http.guard import actor_of, tenant_of
from iotistica.domain import documents
from iotistica.domain.access import document_secrets
from iotistica.domain.control import targets as rules
from iotistica.domain.control.targets import Target
from iotistica.domain.ids import TenantId
from iotistica.errors import Outdated
from iotistica.storage.control import targets
from iotistica.storage.control.targets import TargetHead, TargetOwner
from iotistica.storage.postgres import Database, Tx

Edit = Callable[[Target], Target]
"""What a writer makes of the target as it is, secrets open."""


class TargetView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A target, secrets masked. What is deployed is `deployedVersion`; the document is that of `version`."""

    uuid: UUID
    version: int
    apps: dict[str, Any]
    config: dict[str, Any]
    needs_deployment: bool
    """Whether a newer version than the one deployed is written."""
    deployed_version: int | None
    deployed_at: datetime | None
    deployed_by: dict[str, Any] | None
    updated_at: datetime | None
    updated_by: dict[str, Any] | None


async def change(
    request: ApiRequest,
    database: Database,
    context: ServerContext,
    subject: TargetOwner,
    edit: Edit,
    *,
    draft: bool = False,
    whole: bool = False,
    note: str | None = None,
    restores: int | None = None,
) -> Response[TargetView]:
    """Write what `edit` makes of the version that is deployed, and deploy that; a draft is made of the newest one.

    So nobody deploys what another has not finished. Masks in a `whole` target stand for what the newest version has
    there, since that is what is shown. What changes nothing is no version. Raises `Outdated` if the
    caller has seen another version than the newest.
    """
    tenant, by, box = tenant_of(request), actor_of(request), context.box
    async with database.transaction(tenant) as tx:
        head = await targets.lock(tx, tenant, subject)
        await check_seen(tx, tenant, subject, head, request.headers.get("if-match"))
        base = head.latest if draft else head.deployed
        sealed = await targets.document_of(tx, tenant, subject, base)
        old = opened(context, tenant, sealed)
        shown = await targets.document_of(tx, tenant, subject, head.latest) if whole else sealed
        new = _kept(edit(old), opened(context, tenant, shown))
        new = Target(apps=box.seal(new.apps, tenant), config=box.seal(new.config, tenant))
        version = base or 0
        if new != sealed or version == 0:
            changes = masked(sealed, new)
            version = await targets.write(
                *(tx, tenant, subject, head, new), changes=changes, by=by, note=note, restores=restores
            )
        if not draft and version != head.deployed:
            await targets.deploy(tx, tenant, subject, version, by=by)
        return await view(tx, tenant, subject, None)


async def check_seen(
    tx: Tx, tenant: TenantId, subject: TargetOwner, head: TargetHead, if_match: str | None
) -> None:
    """Raise `Outdated` unless `If-Match` names the newest version (RFC 9110, section 13.1.1).

    The error holds the newest version, its author, and what changed since the version that the writer has seen.
    """
    if if_match is None or rules.etag_matches(if_match, f'"{head.latest}"'):
        return
    numbers = [number for part in if_match.split(",") if (number := _number(part)) is not None]
    current: dict[str, Any] = {"version": head.latest}
    if head.latest:
        newest = await targets.get(tx, tenant, subject, head.latest)
        current |= {"author": newest.author, "at": newest.at}
        before = await targets.find(tx, tenant, subject, max(numbers)) if numbers else None
        if before is not None:
            current["changes"] = msgspec.to_builtins(masked(before.target, newest.target))
    raise Outdated(
        f"If-Match does not name the newest version, which is {head.latest}."
        " Read that version and write again with its ETag.",
        current,
    )


def _number(tag: str) -> int | None:
    """The version that a tag names; None if it names none."""
    text = tag.strip().removeprefix("W/").strip('"')
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _kept(new: Target, old: Target) -> Target:
    """The document checked, with the secrets that its masks stand for."""
    whole = rules.validate_target(new.apps, new.config)
    kept = document_secrets.keep_masked(msgspec.to_builtins(whole), msgspec.to_builtins(old))
    return msgspec.convert(kept, Target)


def opened(context: ServerContext, tenant: TenantId, target: Target) -> Target:
    """A target with its secrets."""
    return Target(apps=context.box.open(target.apps, tenant), config=context.box.open(target.config, tenant))


def masked(old: Target, new: Target) -> list[documents.Change]:
    """What changed between two sealed targets, secrets masked."""
    found = documents.differences(msgspec.to_builtins(old), msgspec.to_builtins(new))
    return [msgspec.convert(document_secrets.mask(msgspec.to_builtins(one)), documents.Change) for one in found]


async def view(tx: Tx, tenant: TenantId, subject: TargetOwner, version: int | None) -> Response[TargetView]:
    """A version of a target, the newest unless one is named; raises `NotFound`."""
    head = await targets.head(tx, tenant, subject)
    shown = await targets.get(tx, tenant, subject, version or head.latest) if version or head.latest else None
    content = TargetView(
        uuid=subject.id,
        version=shown.version if shown else 0,
        apps=document_secrets.mask(shown.apps) if shown else {},
        config=document_secrets.mask(shown.config) if shown else {},
        needs_deployment=head.latest != (head.deployed or 0),
        deployed_version=head.deployed,
        deployed_at=head.deployed_at,
        deployed_by=head.deployed_by,
        updated_at=shown.at if shown else None,
        updated_by=shown.author if shown else None,
    )
    return Response(content, headers={"ETag": f'"{head.latest}"'})
