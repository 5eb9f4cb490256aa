"""Targets of notifications: where messages about incidents go, and which of them."""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from iotistica.domain.agents import tag_selectors
from iotistica.domain.alerts import message_templates, schedules, scopes
from iotistica.domain.alerts.events import SEVERITIES, Severity
from iotistica.domain.alerts.schedules import Schedule
from iotistica.errors import Invalid

URL_LENGTH: Final = 2000  # characters of a URL
SIGNING_PREFIX: Final = "whsec_"
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]{0,1000}")
_RESERVED_HEADERS: Final = ("host", "content-length", "content-type", "transfer-encoding", "connection")
Address = Annotated[str, Meta(min_length=3, max_length=254, pattern=r"^[^@\s,;<>\"]+@[^@\s,;<>\"]+$")]


class Route(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    """Which incidents a target is told of: those that fit everything that is given."""

    min_severity: Severity = "info"
    labels: Annotated[str, Meta(max_length=tag_selectors.SELECTOR_LENGTH)] | None = None
    """A selector of labels, which are those of the rule and the tags of the agent: `site=berlin,line in (1,2)`."""
    active: Schedule | None = None
    """The hours in which the target is told; what lasts until they begin is told then."""


class _Channel(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    tag_field="kind",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """The form of every channel: an object with a `kind`."""


class Webhook(_Channel, frozen=True, kw_only=True, tag="webhook"):
    """An HTTP request as Standard Webhooks describes it, with a body of this platform or of another product."""

    url: Annotated[str, Meta(min_length=8, max_length=URL_LENGTH)]
    format: Literal["standard", "slack", "teams", "alertmanager", "pagerduty"] = "standard"
    signing_secrets: Annotated[tuple[str, ...], Meta(max_length=2)] = ()
    """Secrets in base64 after `whsec_`; with two, each request is signed with both, so that one can be replaced."""
    routing_key: Annotated[str, Meta(max_length=200)] | None = None
    """PagerDuty's integration key."""
    headers: Annotated[dict[str, str], Meta(max_length=20)] = {}


class Email(_Channel, frozen=True, kw_only=True, tag="email"):
    """E-mail through the server that an administrator has set up."""

    to: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=20)]


class Apprise(_Channel, frozen=True, kw_only=True, tag="apprise"):
    """Slack, Teams, Telegram, ntfy and others by a URL of Apprise, if an administrator has switched it on."""

    url: Annotated[str, Meta(min_length=5, max_length=URL_LENGTH)]


Channel = Webhook | Email | Apprise


class Template(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The texts of messages, in the Liquid language, instead of the usual ones."""

    title: Annotated[str, Meta(max_length=500)] | None = None
    text: Annotated[str, Meta(max_length=4000)] | None = None


class TargetSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Where a target is, what it is told, and how fast; its name stands beside it."""

    channel: Channel
    routes: Annotated[tuple[Route, ...], Meta(max_length=20)] = (Route(),)
    """A target is told of an incident if one of its routes fits; with none only where a rule or a step names it."""
    template: Template = Template()
    per_minute: Annotated[int, Meta(ge=1, le=600)] = 30
    """Messages a minute; further ones wait, and e-mails are combined."""
    give_up_after_seconds: Annotated[float, Meta(ge=5, le=7 * 86_400)] = 86_400.0
    """How long a message is tried before it becomes a dead letter."""

    def check(self) -> None:
        """Raise `Invalid` with the path of a field that cannot work."""
        match self.channel:
            case Webhook():
                _check_webhook(self.channel)
            case Apprise():
                if "://" not in self.channel.url or any(c.isspace() or c == "," for c in self.channel.url):
                    raise Invalid("must be one URL of Apprise, such as slack://…", "channel.url")
            case _:
                pass
        for number, route in enumerate(self.routes):
            path = f"routes[{number}]"
            if route.labels is not None:
                try:
                    tag_selectors.parse(route.labels)
                except Invalid as exc:
                    raise Invalid(str(exc), f"{path}.labels") from None
            if route.active is not None:
                route.active.check(f"{path}.active")
        message_templates.check(self.template.title, "template.title")
        message_templates.check(self.template.text, "template.text")


def _check_webhook(webhook: Webhook) -> None:
    try:
        parts = urlsplit(webhook.url)
        port = parts.port
    except ValueError as exc:
        raise Invalid(f"is not a URL ({exc})", "channel.url") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid("must be a URL that begins with http:// or https:// and names a host", "channel.url")
    if parts.username is not None or parts.password is not None:
        raise Invalid("must not contain a user or a password; use headers", "channel.url")
    if port == 0 or not webhook.url.isascii() or any(c <= " " or c == "\x7f" for c in webhook.url):
        raise Invalid("must have ASCII characters and a port above 0; encode others as %XX", "channel.url")
    for number, secret in enumerate(webhook.signing_secrets):
        _check_secret(secret, f"channel.signingSecrets[{number}]")
    for name, value in webhook.headers.items():
        if not _HEADER.fullmatch(name) or name.lower() in _RESERVED_HEADERS or name.lower().startswith("webhook-"):
            raise Invalid("is not a header that can be set", f"channel.headers.{name[:100]}")
        if not _HEADER_VALUE.fullmatch(value):
            raise Invalid("must have printable ASCII characters", f"channel.headers.{name}")
    if webhook.format == "pagerduty" and not webhook.routing_key:
        raise Invalid("is missing: the integration key of PagerDuty", "channel.routingKey")


def _check_secret(secret: str, path: str) -> None:
    try:
        key = base64.b64decode(secret.removeprefix(SIGNING_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SIGNING_PREFIX) or not 24 <= len(key) <= 64:
        raise Invalid(f"must be {SIGNING_PREFIX} and 24 to 64 bytes in base64", path)


def when_told(spec: TargetSpec, severity: Severity, labels: Mapping[str, str], now: datetime) -> datetime | None:
    """Return when a target is told of an incident: now, or when the hours of a route begin; None for never."""
    moments = []
    for route in spec.routes:
        if SEVERITIES.index(severity) < SEVERITIES.index(route.min_severity):
            continue
        if route.labels is not None and not scopes.matches_tags(route.labels, labels):
            continue
        moments.append(now if route.active is None else schedules.next_covered(route.active, now))
    return min((moment for moment in moments if moment is not None), default=None)
