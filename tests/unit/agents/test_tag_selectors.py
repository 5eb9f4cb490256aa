"""Selectors of agents by their tags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotistica.domain.agents import tag_selectors
from iotistica.domain.agents.tag_selectors import Term, matches, parse
from iotistica.errors import Invalid

KEYS = st.sampled_from(["site", "line", "a/b", "x.y"])
VALUES = st.sampled_from(["berlin", "1", "2", "north east", ""])


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("site=berlin", (Term("site", ("berlin",)),)),
        ("site==berlin , !spare", (Term("site", ("berlin",)), Term("spare", negated=True))),
        ("line in (1, 2),site", (Term("line", ("1", "2")), Term("site"))),
        ("line notin (1),env!=prod", (Term("line", ("1",), negated=True), Term("env", ("prod",), negated=True))),
        ("url=a=b", (Term("url", ("a=b",)),)),
        ("", ()),
    ],
)
def test_a_selector_is_read_as_it_is_written(text: str, terms: tuple[Term, ...]) -> None:
    """Commas inside parentheses do not end a term."""
    assert parse(text) == terms


@given(st.dictionaries(KEYS, VALUES), KEYS, st.lists(VALUES, min_size=1, max_size=3))
def test_a_negated_term_means_all_others(tags: dict[str, str], key: str, values: list[str]) -> None:
    """An agent without the key is among them, as in the selectors of Kubernetes."""
    positive = matches((Term(key, tuple(values)),), tags)
    assert positive == (tags.get(key) in values)
    assert matches((Term(key, tuple(values), negated=True),), tags) != positive


@pytest.mark.parametrize(
    "text", ["a b=1", "=1", "a in b", "x" * 64 + "=1", "a" * 3000, ",".join("abcdefghijklmnopqrstuv")]
)
def test_a_selector_that_is_none_is_refused(text: str) -> None:
    """Never taken for one that means everybody."""
    with pytest.raises(Invalid):
        parse(text)


def test_tags_are_refused_by_the_key_at_fault() -> None:
    """What is kept is text."""
    assert tag_selectors.checked_tags({"a": 1, "b": False}) == {"a": "1", "b": "false"}
    for tags in ({"": "x"}, {"a b": "x"}, {"a": None}, {"a": ["x"]}):
        with pytest.raises(Invalid):
            tag_selectors.checked_tags(tags)
