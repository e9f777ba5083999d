"""Texts as the pages show them."""

import pytest

from opencode_pages.rendering import worded


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("until `opencode` ends", "until <code>opencode</code> ends"),
        ("a `<b>` here", "a <code>&lt;b&gt;</code> here"),
        ("one ` alone", "one ` alone"),
        ("`a ⟨U+200B⟩` b", "`a <mark>⟨U+200B⟩</mark>` b"),
        ("`a ⟨` b⟩", "`a <mark>⟨` b⟩</mark>"),
    ],
)
def test_a_sentence_shows_its_code(text: str, shown: str) -> None:
    assert worded(text) == shown
