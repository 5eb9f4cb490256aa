"""Creates versions of a target (edit, validate, seal, store, deploy), and formats them for responses."""

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
from iotistica.domain.control.sealed_targets import open_target, seal_target
from iotistica.domain.control.targets import Target
from iotistica.domain.ids import TenantId
from iotistica.errors import Outdated
from iotistica.storage.control import targets
from iotistica.storage.control.targets import TargetHead, TargetOwner
from iotistica.storage.postgres import Database, Tx

Edit = Callable[[Target], Target]
"""A function that returns the edited target; both with plain secrets."""


class TargetView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Version `version` of a target, secrets masked; the deployed version is `deployedVersion`."""

    uuid: UUID
    version: int
    apps: dict[str, Any]
    config: dict[str, Any]
    needs_deployment: bool
    """Whether there is a newer version than the deployed one."""
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
    """Apply `edit` to the deployed version, store the result as a new version and deploy it.

    A draft is based on the newest version instead, and not deployed, so that no one deploys an unfinished draft of
    another user. Masks in a `whole` target stand for the secrets of the newest version, which clients see. An
    edit that changes nothing stores no version. Raises `Outdated` if `If-Match` does not name the newest version.
    """
    tenant, by, box = tenant_of(request), actor_of(request), context.box
    async with database.transaction(tenant) as tx:
        head = await targets.lock(tx, tenant, subject)
        await check_seen(tx, tenant, subject, head, request.headers.get("if-match"))
        base = head.latest if draft else head.deployed
        sealed = await targets.document_of(tx, tenant, subject, base)
        old = open_target(box, sealed, tenant)
        shown = await targets.document_of(tx, tenant, subject, head.latest) if whole else sealed
        new = _validated(edit(old), open_target(box, shown, tenant))
        new = seal_target(box, new, tenant)
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

    The error has the newest version, its author, and the changes since the version that the caller has read.
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
    """Return the version number in an ETag; None if it has none."""
    text = tag.strip().removeprefix("W/").strip('"')
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _validated(new: Target, old: Target) -> Target:
    """Validate the new target, and replace its masks with the secrets of the old one."""
    validated = rules.validate_target(new.apps, new.config)
    kept = document_secrets.keep_masked(msgspec.to_builtins(validated), msgspec.to_builtins(old))
    return msgspec.convert(kept, Target)


def masked(old: Target, new: Target) -> list[documents.Change]:
    """Return the differences between two sealed targets, secrets masked."""
    changes = documents.differences(msgspec.to_builtins(old), msgspec.to_builtins(new))
    return [msgspec.convert(document_secrets.mask(msgspec.to_builtins(c)), documents.Change) for c in changes]


async def view(tx: Tx, tenant: TenantId, subject: TargetOwner, version: int | None) -> Response[TargetView]:
    """Return the response for a version of a target, by default the newest; raises `NotFound`."""
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
