"""How users and sessions are shown."""

from datetime import datetime
from uuid import UUID

import msgspec

from iotistica.storage.access import users


class UserView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    id: str
    email: str
    username: str | None
    full_name: str | None
    role: str
    active: bool
    tenant_id: str
    created_at: datetime


class Session(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    access_token: str
    refresh_token: str | None = None
    """Absent if it is in the cookie."""
    expires_in: int
    """The lifetime of the access token in seconds."""
    user: UserView
    permissions: list[str]
    """What the user's role allows."""


class SessionView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    id: UUID
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    address: str | None
    user_agent: str | None
    is_this: bool


class Sessions(msgspec.Struct, frozen=True, kw_only=True):
    sessions: list[SessionView]


def view(user: users.User) -> UserView:
    """Return the API representation of a user."""
    return UserView(
        id=str(user.user_id),
        email=user.email,
        username=user.username,
        full_name=user.full_name,
        role=user.role,
        active=user.active,
        tenant_id=user.tenant_id,
        created_at=user.created_at,
    )
