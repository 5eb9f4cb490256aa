"""What handlers are given, by the names their parameters have."""

from typing import Any

from litestar import Request
from litestar.di import NamedDependency

from iotistica.api.tokens import Claims, Tokens
from iotistica.storage.postgres import Database
from iotistica.storage.redis import Redis

Call = Request[Any, Claims, Any]
"""A request with the claims of who makes it."""

Data = NamedDependency[Database]
Streams = NamedDependency[Redis]
Signer = NamedDependency[Tokens]
Roles = NamedDependency[list[str]]
