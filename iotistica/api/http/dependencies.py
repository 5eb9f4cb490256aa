"""What handlers are given, by the names their parameters have."""

import secrets
from typing import Any

import msgspec
from litestar import Request
from litestar.di import NamedDependency

from iotistica.api.http.access_tokens import AccessTokens
from iotistica.api.http.authentication import Authenticator, Principal
from iotistica.api.http.broker_sync import BrokerSync
from iotistica.domain.access import credentials
from iotistica.domain.access.credentials import NewSecret
from iotistica.domain.access.document_secrets import SecretBox
from iotistica.domain.agents.broker_connection import BrokerAddress
from iotistica.process_health import ProcessHealth
from iotistica.settings import Settings
from iotistica.storage.access.rate_limits import RateLimiter
from iotistica.storage.agents.poll_answers import PollAnswers
from iotistica.storage.agents.poll_counts import PollCounts
from iotistica.storage.delivery.inbox import Inbox
from iotistica.storage.delivery.live_hub import LiveHub
from iotistica.storage.history.timeline_counts import TimelineCounts
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

ApiRequest = Request[Any, Principal, Any]
"""A request with who makes it."""


class ServerContext(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for every request."""

    settings: Settings
    key: bytes
    """The server's key, which secrets are derived and digested with."""
    broker: BrokerAddress
    """Where agents are sent."""

    @property
    def box(self) -> SecretBox:
        """Seals and opens the secrets of documents."""
        return SecretBox(self.key)

    def secret(self, prefix: str) -> NewSecret:
        """A new secret of a kind."""
        return credentials.new(self.key, prefix, secrets.token_bytes(credentials.ENTROPY))


DatabaseDep = NamedDependency[Database]
"""The tenant's rows alone, in a transaction that names it."""
PlatformDatabaseDep = NamedDependency[Database]
"""Every tenant's rows, for what finds a tenant; named `platform_database`."""
RedisDep = NamedDependency[Redis]
OptionalRedisDep = NamedDependency[Redis | None]
ProcessHealthDep = NamedDependency[ProcessHealth]
"""Whether this process is well; named `process_health`."""
InboxDep = NamedDependency[Inbox]
"""Where messages become durable; named `inbox`."""
AccessTokensDep = NamedDependency[AccessTokens]
RateLimiterDep = NamedDependency[RateLimiter]
BrokerSyncDep = NamedDependency[BrokerSync]
"""How current the broker's accounts are; named `broker_sync`."""
ServerContextDep = NamedDependency[ServerContext]
PollAnswersDep = NamedDependency[PollAnswers]
"""What agents are told; named `polls`."""
PollCountsDep = NamedDependency[PollCounts]
"""Who asked, and when; named `counts`."""
TimelineCountsDep = NamedDependency[TimelineCounts]
"""What happens to agents too often to write each time; named `timeline_counts`."""
LiveHubDep = NamedDependency[LiveHub]
"""Who listens; named `live_hub`."""
AuthenticatorDep = NamedDependency[Authenticator]
"""Who knows credentials; named `authenticator`."""
RolesDep = NamedDependency[list[str]]
