"""Errors named for the reaction they call for; the docstring is the default message."""

import struct
from typing import ClassVar, Final


class IotisticaError(Exception):
    """Something went wrong."""

    reason: ClassVar[str] = "error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class InvalidMessage(IotisticaError):
    """The sender must fix this message; it is kept as a dead letter, never retried."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """Keep `reason` as one of the few stable words that metrics and dead letters count by."""
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.code = reason
        self.detail = detail


class Unavailable(IotisticaError):
    """A service this needs is away; wait and try again."""


class NotTaken(Unavailable):
    """Neither Redis nor the disk takes these messages; wait and try again."""


class TooSlow(Unavailable):
    """It took too long; ask for less."""


class Refused(Unavailable):
    """A service answered, and does not want us now; wait and try again."""


class Full(Unavailable):
    """A stream is at its mark; wait until its consumers have caught up."""


class Superseded(IotisticaError):
    """Another process holds this now; stand by."""


class CannotStart(IotisticaError):
    """This process cannot do its work as configured; end it and say why."""


class Invalid(IotisticaError):
    """The caller must change the request; `path` names the field at fault."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class Unauthorized(IotisticaError):
    """Log in: the credentials are missing, wrong or expired."""


class Forbidden(IotisticaError):
    """Your role does not allow this."""


class NotFound(IotisticaError):
    """There is nothing here by that name."""


class TooMany(IotisticaError):
    """Too often; wait `seconds` and try again."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = max(seconds, 1.0)


class Conflict(IotisticaError):
    """Something with that name exists already, or it has changed meanwhile."""


class Outdated(Conflict):
    """Somebody else has changed this meanwhile: read it, and write again; `current` says what it is now."""

    def __init__(self, message: str, current: object) -> None:
        super().__init__(message)
        self.current = current


REFUSALS: Final = (Invalid, ValueError, TypeError, ArithmeticError, LookupError, struct.error)
"""What a message may bring about that the database, or our packing of it, does not take."""
