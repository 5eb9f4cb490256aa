"""Sends notices by the channel of their target: a webhook, e-mail, or a service of Apprise."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from standardwebhooks.webhooks import Webhook as Signer

from iotistica.domain.alerts import addresses, notices
from iotistica.domain.alerts.targets import Apprise, Email, TargetSpec, Webhook
from iotistica.errors import CannotStart
from iotistica.notifications.apprise_client import AppriseClient
from iotistica.notifications.http_client import Answer, HttpClient
from iotistica.notifications.mail_client import MailClient
from iotistica.settings import Settings
from iotistica.storage.alerts.notices import DueNotice


class Channels:
    """The clients of all channels; those that are not set up answer with what is missing."""

    def __init__(self, http: HttpClient, mail: MailClient | None, apprise: AppriseClient | None) -> None:
        self._http = http
        self._mail = mail
        self._apprise = apprise

    def groups(self, spec: TargetSpec | None, due: Sequence[DueNotice]) -> Iterator[Sequence[DueNotice]]:
        """Yield the notices that are sent together: webhooks one by one, several messages for people as one."""
        if spec is None or isinstance(spec.channel, Webhook):
            yield from ([notice] for notice in due)
        else:
            yield due

    async def send(self, spec: TargetSpec, name: str, sent: Sequence[DueNotice], at: datetime) -> Answer:
        """Send notices to a target with this name."""
        match spec.channel:
            case Webhook() as webhook:
                return await self._post(webhook, spec, name, sent[0], at)
            case Email() as email:
                if self._mail is None:
                    return Answer(None, "no mail server is set up; an administrator sets IOTISTICA_SMTP_URL")
                title, text = _message(spec, sent)
                thread = sent[0].incident_id if len({notice.incident_id for notice in sent}) == 1 else None
                return await self._mail.send(
                    email.to,
                    title,
                    text,
                    message_id=sent[0].notice_id,
                    thread=str(thread) if thread else None,
                    url=sent[0].facts.url,
                )
            case Apprise() as service:
                if self._apprise is None:
                    return Answer(None, "Apprise is switched off; an administrator sets IOTISTICA_APPRISE")
                return await self._apprise.send(service.url, *_message(spec, sent))

    async def _post(self, webhook: Webhook, spec: TargetSpec, name: str, notice: DueNotice, at: datetime) -> Answer:
        body = notices.body(notice.facts, webhook, spec.template, receiver=name)
        headers = dict(webhook.headers)
        headers["webhook-id"] = notice.notice_id
        headers["webhook-timestamp"] = str(int(at.timestamp()))
        if webhook.signing_secrets:
            text = body.decode()
            signatures = [Signer(secret).sign(notice.notice_id, at, text) for secret in webhook.signing_secrets]
            headers["webhook-signature"] = " ".join(signatures)
        return await self._http.post(webhook.url, headers, body)


def _message(spec: TargetSpec, sent: Sequence[DueNotice]) -> tuple[str, str]:
    """Return the title and text of one message for several notices."""
    return notices.combined(
        [(notices.title(n.facts, spec.template), notices.text(n.facts, spec.template)) for n in sent]
    )


def open_channels(settings: Settings) -> Channels:
    """Return the channels that these settings set up; raises `CannotStart`."""
    try:
        allowed = addresses.parse_networks(settings.webhook_allow)
    except ValueError as exc:
        raise CannotStart(f"IOTISTICA_WEBHOOK_ALLOW must be networks such as 10.1.0.0/16: {exc}") from None
    host = settings.agents_host
    is_name = ":" not in host and not host[-1:].isdigit()
    sender = settings.smtp_from or f"iotistica@{host if is_name else 'localhost'}"
    return Channels(
        HttpClient(allowed),
        MailClient(settings.smtp_url, sender) if settings.smtp_url else None,
        AppriseClient() if settings.apprise else None,
    )
