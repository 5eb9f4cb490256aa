"""Sends messages by Apprise, a library that knows Slack, Teams, Telegram, ntfy and many others."""

import asyncio
import importlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from iotistica.errors import CannotStart
from iotistica.notifications.http_client import Answer

DEADLINE: Final = 20.0  # seconds for one message
THREADS: Final = 16  # messages at a time: the library waits in threads
SCHEMES: Final = frozenset(
    (
        *(
            "slack",
            "msteams",
            "workflows",
            "workflow",
            "tgram",
            "ntfy",
            "ntfys",
            "discord",
            "gchat",
            "matrix",
            "matrixs",
        ),
        *(
            "mmost",
            "mmosts",
            "rocket",
            "rockets",
            "pover",
            "pbul",
            "gotify",
            "gotifys",
            "signal",
            "signals",
            "webex",
        ),
        *("wxteams", "zulip", "pagerduty", "opsgenie", "splunk", "victorops", "twilio", "sns", "line", "threema"),
    )
)
"""The services that can be used. Those that call any address or run programs on this machine are left out."""


class AppriseClient:
    """Sends messages in threads, each within `DEADLINE`."""

    def __init__(self) -> None:
        """Raise `CannotStart` if the library is not installed."""
        try:
            self._apprise: Any = importlib.import_module("apprise")  # an extra, and slow to import
        except ImportError:
            raise CannotStart(
                "IOTISTICA_APPRISE needs the package apprise: pip install iotistica[apprise]"
            ) from None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="apprise")

    async def send(self, url: str, title: str, text: str) -> Answer:
        """Send a message to the service that a URL names."""
        if url.partition("://")[0].lower() not in SCHEMES or any(c.isspace() or c == "," for c in url):
            return Answer(None, f"must be one URL that begins with one of {', '.join(sorted(SCHEMES))}")
        try:
            async with asyncio.timeout(DEADLINE):
                loop = asyncio.get_running_loop()
                sent = await loop.run_in_executor(self._threads, self._send, url, title, text)
        except TimeoutError:
            return Answer(None, f"no answer within {DEADLINE:.0f} s")
        return Answer(200, None) if sent else Answer(None, "the service did not accept the message; check its URL")

    def _send(self, url: str, title: str, text: str) -> bool:
        service = self._apprise.Apprise.instantiate(url)  # one URL: a list could smuggle in another service
        return service is not None and bool(service.notify(body=text, title=title))
