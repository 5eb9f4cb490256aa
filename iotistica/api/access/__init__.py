"""Routes for logging in, users, invitations and API keys."""

from typing import Final

from litestar.types import ControllerRouterHandler

from iotistica.api.access import api_keys, invitations, login, passwords, users

ROUTES: Final[list[ControllerRouterHandler]] = [
    login.router,
    passwords.router,
    invitations.router,
    users.router,
    api_keys.router,
]
