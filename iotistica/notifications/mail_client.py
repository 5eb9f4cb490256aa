"""Sends e-mails through the server that an administrator has set up."""

import ssl
from collections.abc import Sequence
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Final
from urllib.parse import unquote, urlsplit

import aiosmtplib

from iotistica.domain.alerts import notices
from iotistica.errors import CannotStart
from iotistica.notifications.http_client import Answer

DEADLINE: Final = 20.0  # seconds for one e-mail
SCHEMES: Final = {"smtp": 587, "smtps": 465}
"""The schemes of a server's URL, with their usual ports."""


class MailClient:
    """Sends e-mails one by one, each over its own connection."""

    def __init__(self, url: str, sender: str, *, deadline: float = DEADLINE) -> None:
        """`url` is `smtp://user:password@host:587` or `smtps://…`; raises `CannotStart` for any other.

        `sender` is an address, perhaps with a name before it.
        """
        try:
            parts = urlsplit(url)
            self._port = parts.port or SCHEMES[parts.scheme]
            self._host = parts.hostname or ""
        except (KeyError, ValueError):
            self._host = ""
        if not self._host:
            raise CannotStart("IOTISTICA_SMTP_URL must be a URL such as smtp://user:password@mail.example.com:587")
        self._uses_tls = parts.scheme == "smtps"
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        try:
            self._from = Address("Iotistica", addr_spec=parseaddr(sender)[1])
        except (ValueError, HeaderParseError):
            raise CannotStart(f"IOTISTICA_SMTP_FROM must be an e-mail address; it is {sender!r}") from None
        self._deadline = deadline
        self._tls = ssl.create_default_context()

    async def send(
        self, to: Sequence[str], title: str, text: str, *, message_id: str, thread: str | None, url: str
    ) -> Answer:
        """Send an e-mail with text and HTML; the same `message_id` is the same e-mail sent again."""
        domain = self._from.domain
        message = EmailMessage()
        message["From"] = self._from
        message["To"] = ", ".join(to)
        message["Subject"] = title
        message["Message-ID"] = f"<{message_id}@{domain}>"
        if thread:
            message["References"] = message["In-Reply-To"] = f"<incident-{thread}@{domain}>"
        message["Auto-Submitted"] = "auto-generated"  # so that no absence assistant answers
        message.set_content(text)
        message.add_alternative(notices.html(text, url), subtype="html")
        try:
            await aiosmtplib.send(
                message,
                hostname=self._host,
                port=self._port,
                username=self._user,
                password=self._password,
                use_tls=self._uses_tls,
                tls_context=self._tls,
                timeout=self._deadline,
            )
        except aiosmtplib.SMTPRecipientsRefused as exc:
            refused = ", ".join(f"{error.recipient}: {error.code} {error.message}" for error in exc.recipients)
            return Answer(None, f"the mail server refuses {refused}")
        except aiosmtplib.SMTPResponseException as exc:
            return Answer(exc.code, f"the mail server answers {exc.code} {exc.message}")
        except (aiosmtplib.SMTPException, OSError, ValueError, UnicodeError) as exc:
            return Answer(None, f"the mail server cannot be used: {exc or type(exc).__name__}")
        return Answer(250, None)
