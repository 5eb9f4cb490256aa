"""Bodies of messages for the incoming webhooks of chats.

Names and texts of devices are in them, so nothing in a text can mention anybody or hide where a link leads.
"""

from typing import Any, Final

LENGTH: Final = 4000  # characters of a text; Slack cuts at 40,000, and Teams refuses messages of 28 KB
LINES: Final = 50  # of a card
_SPACE: Final = "\u200b"  # has no width
# Slack's commands and links stand in angle brackets; Mattermost and Rocket.Chat read @name and [text](address).
_ESCAPES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": f"@{_SPACE}", "](": f"]{_SPACE}("}


def slack(title: str, text: str, url: str) -> dict[str, Any]:
    """Return the body of an incoming webhook of Slack, as Mattermost, Rocket.Chat and Google Chat take it too.

    https://docs.slack.dev/messaging/formatting-message-text
    """
    said = f"{title}\n{_cut(text, url)}"
    for mark, escaped in _ESCAPES.items():
        said = said.replace(mark, escaped)
    return {"text": said}


def teams(title: str, text: str, url: str) -> dict[str, Any]:
    """Return the message with an Adaptive Card that an incoming webhook of a Teams workflow takes.

    Runs of text have no Markdown, unlike blocks of text: https://adaptivecards.io/explorer/TextRun.html
    """
    lines = [line for line in _cut(text, url).splitlines() if line][:LINES]
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [_paragraph(title, weight="Bolder"), *map(_paragraph, lines)],
    }
    if url:
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open the incident", "url": url}]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _cut(text: str, url: str) -> str:
    """Return the beginning of a text, with the address of the incident that stands at its end."""
    return text if len(text) <= LENGTH else f"{text[:LENGTH]} …\n{url}"


def _paragraph(text: str, **style: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}
