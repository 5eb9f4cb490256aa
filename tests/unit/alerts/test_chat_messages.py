"""Messages for chats hold the names that devices give themselves, which must not act there."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from iotistica.domain.alerts import chat_messages

ACTING = re.compile(r"@\w|\]\(|<|>")
PARTS = ["<!channel>", "@here", "@", "alice", "&lt;", "<http://a|b>", "[https://good](https://bad)", "](", "\n"]
TEXTS = st.text() | st.lists(st.sampled_from(PARTS)).map("".join)
URL = "https://home/incidents/1"


@given(TEXTS, TEXTS)
@example("<!channel>", "@here <https://example.org|the platform>")
def test_a_text_for_slack_mentions_nobody_and_hides_no_link(title: str, text: str) -> None:
    """Neither commands nor labelled links are left, in Slack's way of writing or in Markdown, and no mention."""
    assert not ACTING.search(chat_messages.slack(title, text, URL)["text"])


def test_a_long_text_is_cut_and_keeps_the_address_of_the_incident() -> None:
    """Chats refuse what is too long, and then nobody would be told."""
    text = "<" * 50_000 + "\n" + "line\n" * 500
    sent = chat_messages.slack("title", text, URL)["text"]
    assert sent.endswith(URL)
    assert len(sent) < 40_000
    assert len(str(chat_messages.teams("title", "line\n" * 10_000, URL))) < 28_000


@given(TEXTS, TEXTS)
def test_a_card_for_teams_holds_texts_only_where_no_markdown_is_read(title: str, text: str) -> None:
    """Every text is a run of text as it was; only the platform's own address is a link."""
    card = chat_messages.teams(title, text, URL)["attachments"][0]["content"]
    runs = [paragraph["inlines"][0]["text"] for paragraph in card["body"]]
    assert {paragraph["type"] for paragraph in card["body"]} == {"RichTextBlock"}
    assert runs == [title, *[line for line in text.splitlines() if line][: chat_messages.LINES]]
    assert [action["url"] for action in card["actions"]] == [URL]
