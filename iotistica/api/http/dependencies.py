"""What handlers are given, by the names their parameters have."""

import secrets
from typing import Any

import msgspec
from litestar import Request
from litestar.di import NamedDependency

from iotistica.api.http.access_tokens import Tokens
from iotistica.api.http.authentication import Doorman, Principal
from iotistica.api.http.broker_sync import Rendering
from iotistica.domain.access import credentials
from iotistica.domain.access.credentials import Secret
from iotistica.domain.access.document_secrets import Box
from iotistica.domain.agents.broker_connection import Broker
from iotistica.process_health import Vitals
from iotistica.settings import Settings
from iotistica.storage.access.rate_limits import Limits
from iotistica.storage.agents.poll_answers import Counts, Polls
from iotistica.storage.delivery.inbox import Inbox
from iotistica.storage.delivery.live_hub import Hub
from iotistica.storage.history.timeline_counts import Tally
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

Call = Request[Any, Principal, Any]
"""A request with who makes it."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for every request."""

    settings: Settings
    key: bytes
    """The server's key, which secrets are derived and digested with."""
    broker: Broker
    """Where agents are sent."""

    @property
    def box(self) -> Box:
        """Seals and opens the secrets of documents."""
        return Box(self.key)

    def secret(self, prefix: str) -> Secret:
        """A new secret of a kind."""
        return credentials.new(self.key, prefix, secrets.token_bytes(credentials.ENTROPY))


Data = NamedDependency[Database]
"""The tenant's rows alone, in a transaction that names it."""
Lookups = NamedDependency[Database]
"""Every tenant's rows, for what finds a tenant; named `lookups`."""
Streams = NamedDependency[Redis]
MaybeStreams = NamedDependency[Redis | None]
Signs = NamedDependency[Vitals]
"""Whether this process is well; named `vitals`."""
Inlet = NamedDependency[Inbox]
"""Where messages become durable; named `inbox`."""
Signer = NamedDependency[Tokens]
Limiter = NamedDependency[Limits]
Accounts = NamedDependency[Rendering]
"""How current the broker's accounts are; named `rendering`."""
Here = NamedDependency[Site]
Told = NamedDependency[Polls]
"""What agents are told; named `polls`."""
Polled = NamedDependency[Counts]
"""Who asked, and when; named `counts`."""
Noted = NamedDependency[Tally]
"""What happens to agents too often to write each time; named `tally`."""
Ears = NamedDependency[Hub]
"""Who listens; named `hub`."""
Door = NamedDependency[Doorman]
"""Who knows credentials; named `doorman`."""
Roles = NamedDependency[list[str]]
