"""Bodies of messages for the incoming webhooks of chats.

Names and texts of devices are in them, so nothing in a text can mention anybody or hide where a link leads.
"""

import re
from typing import Any, Final

SLACK_LENGTH: Final = 4000  # characters; Slack advises at most this, and cuts at 40,000
_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
# Mattermost and Rocket.Chat read these as mentions wherever they stand, Slack only in angle brackets.
_MENTION: Final = re.compile(r"@(?=(?:all|channel|everyone|here)\b)", re.IGNORECASE)
_ZERO_WIDTH_SPACE: Final = "\u200b"


def slack(title: str, text: str) -> dict[str, Any]:
    """Return the body of an incoming webhook of Slack, as Mattermost, Rocket.Chat and Google Chat take it too.

    https://docs.slack.dev/messaging/formatting-message-text
    """
    return {"text": f"{_plain(title)}\n{_plain(text)}"[:SLACK_LENGTH]}


def teams(title: str, text: str, url: str) -> dict[str, Any]:
    """Return the message with an Adaptive Card that an incoming webhook of a Teams workflow takes.

    Runs of text have no Markdown, unlike blocks of text: https://adaptivecards.io/explorer/TextRun.html
    """
    lines = [_paragraph(title, weight="Bolder"), *(_paragraph(line) for line in text.splitlines() if line)]
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": lines,
    }
    if url:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open the incident", "url": url}]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _plain(text: str) -> str:
    return _MENTION.sub(f"@{_ZERO_WIDTH_SPACE}", text.translate(_ESCAPES))


def _paragraph(text: str, **style: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}
