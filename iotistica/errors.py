"""The platform's exceptions, one for each reaction of the caller; a class's docstring is its default message."""

import struct
from typing import Final


class IotisticaError(Exception):
    """Something went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class InvalidMessage(IotisticaError):
    """The message is invalid; it is stored as a dead letter and not retried, and its sender must be fixed."""

    def __init__(self, reason: str, detail: str = "") -> None:
        """`reason` is one of a few stable codes by which metrics and dead letters are counted."""
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.code = reason
        self.detail = detail


class Unavailable(IotisticaError):
    """A required service is unavailable; try again later."""


class NotAccepted(Unavailable):
    """Neither Redis nor the disk can accept these messages now; try again later."""


class TooSlow(Unavailable):
    """The request took too long; request less data."""


class Refused(Unavailable):
    """A required service refused the request; try again later."""


class Full(Unavailable):
    """A stream is at its high-water mark; wait until its consumers have caught up."""


class Superseded(IotisticaError):
    """Another process holds this lease now; stand by."""


class CannotStart(IotisticaError):
    """This process cannot work with its configuration; it must end with a message that says why."""


class Invalid(IotisticaError):
    """The request is invalid and must be changed; `path` is the field at fault."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class Unauthorized(IotisticaError):
    """Log in: the credentials are missing, wrong or expired."""


class Forbidden(IotisticaError):
    """Your role does not allow this."""


class NotFound(IotisticaError):
    """Not found."""


class TooMany(IotisticaError):
    """There were too many requests; wait `seconds` and try again."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = max(seconds, 1.0)


class Conflict(IotisticaError):
    """The name is already in use, or the object has changed in the meantime."""


class Outdated(Conflict):
    """Another client has changed the object in the meantime; `current` is its present state, to base a retry on."""

    def __init__(self, message: str, current: object) -> None:
        super().__init__(message)
        self.current = current


INVALID_DATA_ERRORS: Final = (Invalid, ValueError, TypeError, ArithmeticError, LookupError, struct.error)
"""The errors that a single message can cause when the database, or the packing for it, refuses its values."""
