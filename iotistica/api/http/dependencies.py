"""The dependencies of handlers; Litestar injects them by the names of the handlers' parameters."""

import secrets
from typing import Any

import msgspec
from litestar import Request
from litestar.di import NamedDependency

from iotistica.api.http.access_tokens import AccessTokens
from iotistica.api.http.authentication import Authenticator, Principal
from iotistica.api.http.broker_sync import BrokerSync
from iotistica.api.http.overviews import Overviews
from iotistica.domain.access import credentials
from iotistica.domain.access.credentials import NewSecret
from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.agents.broker_connection import BrokerAddress
from iotistica.process_health import ProcessHealth
from iotistica.settings import Settings
from iotistica.storage.access.rate_limits import RateLimiter
from iotistica.storage.agents.poll_answer_cache import PollAnswerCache
from iotistica.storage.agents.poll_counts import PollCounts
from iotistica.storage.delivery.inbox import Inbox
from iotistica.storage.delivery.live_hub import LiveHub
from iotistica.storage.history.timeline_counts import TimelineCounts
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

ApiRequest = Request[Any, Principal, Any]
"""A request with its principal."""


class ServerContext(msgspec.Struct, frozen=True, kw_only=True):
    """The settings and secrets that are the same for every request."""

    settings: Settings
    key: bytes
    """The server's key; secrets are derived from it and digested with it."""
    broker: BrokerAddress
    """The address of the broker that agents connect to."""

    @property
    def box(self) -> SecretBox:
        """The box that seals and opens the secrets in documents."""
        return SecretBox(self.key)

    def secret(self, prefix: str) -> NewSecret:
        """Return a new random secret with this prefix."""
        return credentials.new(self.key, prefix, secrets.token_bytes(credentials.ENTROPY))


DatabaseDep = NamedDependency[Database]
"""The database of one tenant: each transaction names the tenant and sees only its rows."""
PlatformDatabaseDep = NamedDependency[Database]
"""The database of all tenants, to find the tenant of a credential; named `platform_database`."""
RedisDep = NamedDependency[Redis]
OptionalRedisDep = NamedDependency[Redis | None]
ProcessHealthDep = NamedDependency[ProcessHealth]
"""The health of this process; named `process_health`."""
InboxDep = NamedDependency[Inbox]
"""Stores messages durably in Redis or the spool; named `inbox`."""
AccessTokensDep = NamedDependency[AccessTokens]
RateLimiterDep = NamedDependency[RateLimiter]
BrokerSyncDep = NamedDependency[BrokerSync]
"""Waits until the broker's accounts are current; named `broker_sync`."""
ServerContextDep = NamedDependency[ServerContext]
PollAnswerCacheDep = NamedDependency[PollAnswerCache]
"""Cached answers to the polls of agents; named `poll_answer_cache`."""
PollCountsDep = NamedDependency[PollCounts]
"""Counts the polls of each agent; named `poll_counts`."""
TimelineCountsDep = NamedDependency[TimelineCounts]
"""Counts timeline events that are too frequent to store one by one; named `timeline_counts`."""
LiveHubDep = NamedDependency[LiveHub]
"""Distributes live updates to subscribed clients; named `live_hub`."""
AuthenticatorDep = NamedDependency[Authenticator]
"""Authenticates credentials; named `authenticator`."""
OverviewsDep = NamedDependency[Overviews]
RolesDep = NamedDependency[list[str]]
