"""Messages for chats hold the names that devices give themselves, which must not act there."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from iotistica.domain.alerts import chat_messages

MENTION = re.compile(r"@(all|channel|everyone|here)\b", re.IGNORECASE)
TEXTS = st.text() | st.lists(
    st.sampled_from(["<!channel>", "@here", "@", "ALL", "&lt;", "<http://a|b>", "\n"])
).map("".join)


@given(TEXTS, TEXTS)
@example("<!channel>", "@here <https://example.org|the platform>")
def test_a_text_for_slack_mentions_nobody_and_hides_no_link(title: str, text: str) -> None:
    """Angle brackets are escaped, so neither commands nor labelled links are left; group mentions are broken."""
    sent = chat_messages.slack(title, text)["text"]
    assert not set("<>") & set(sent)
    assert not MENTION.search(sent)
    assert len(sent) <= chat_messages.SLACK_LENGTH


@given(TEXTS, TEXTS)
def test_a_card_for_teams_holds_texts_only_where_no_markdown_is_read(title: str, text: str) -> None:
    """Every text is a run of text as it was; only the platform's own address is a link."""
    card = chat_messages.teams(title, text, "https://home/incidents/1")["attachments"][0]["content"]
    runs = [paragraph["inlines"][0]["text"] for paragraph in card["body"]]
    assert {paragraph["type"] for paragraph in card["body"]} == {"RichTextBlock"}
    assert runs == [title, *(line for line in text.splitlines() if line)]
    assert [action["url"] for action in card["actions"]] == ["https://home/incidents/1"]
