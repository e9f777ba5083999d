"""What hides or poses in a text is told, and what people really write stays as it is."""

# ruff: noqa: RUF001 - letters that look like others are the point
from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from opencode_common.reveal import reveal
from opencode_common.text import clean

MARKS = {"⟨": "\\u27e8", "⟩": "\\u27e9"}
OUR_MARKS = re.compile(r"⟨(?:[A-Za-z ]+: [^⟨⟩]+|[\d,]+ (?:blanks|empty lines|times U\+[0-9A-F]+))⟩")
TRICKS = (
    "\u200b\u200c\u200d\u00ad\u2800\u00a0\u3000\u2003\u202e\ufe00\ufe0f\u0300\u0335\u0338\u20e3\U000e0041\ue000"
    "\u0430\u0456\u03bf\uff47aix1#⟨⟩ \t\n\r葛あمक्🏳🌈👍🏽❤\ud83d"
)
TEXTS = st.text(st.one_of(st.sampled_from(TRICKS), st.characters()), max_size=60)


@pytest.mark.parametrize(
    ("hidden", "told"),
    [
        ("gi\u200cthub.com", "gi\\u200cthub.com"),
        ("gi\u200dthub.com", "gi\\u200dthub.com"),
        ("a\ufe0fb", "a\\ufe0fb"),
        ("1\ufe0f2", "1\\ufe0f2"),
        ("👍\ufe0f\ufe0f\ufe0f\ufe0f\ufe0f", "👍\ufe0f⟨4 times U+FE0F⟩"),
        ("echo\u2800hi", "echo\\u2800hi"),
        ("rm\u00a0-rf", "rm\\xa0-rf"),
        ("rm\u2003-rf", "rm\\u2003-rf"),
        ("rm\u3000-rf", "rm\\u3000-rf"),
        ("r\u0336m\u0336 -rf", "r\\u0336m\\u0336 -rf"),
        ("a\u0300\u0301\u0302\u0303\u0304", "a\u0300\u0301\u0302\\u0303\\u0304"),
        ("private \ue123 use", "private \\ue123 use"),
        ("می\u200c\u200cخواهم", "می\\u200c\\u200cخواهم"),
        ("a" + "\u200b" * 6000 + "b", "a⟨6,000 times U+200B⟩b"),
        ("echo hi" + " " * 6000 + "; rm -rf ~", "echo hi ⟨6,000 blanks⟩ ; rm -rf ~"),
        ("echo hi" + "\t" * 40 + "; rm -rf ~", "echo hi ⟨40 blanks⟩ ; rm -rf ~"),
        ("echo hi" + "\n \n" * 200 + "rm -rf ~", "echo hi\n⟨399 empty lines⟩\nrm -rf ~"),
        ("g\u0456thub.com", "g⟨Cyrillic: \u0456⟩thub.com"),
        ("\u0440\u0430ypal", "⟨Cyrillic: \u0440\u0430⟩ypal"),
        ("\u0430\u0440\u0440\u04cf\u0435.com", "⟨Cyrillic: \u0430\u0440\u0440\u04cf\u0435⟩.com"),
        ("g\u03bf\u03bfgle", "g⟨Greek: \u03bf\u03bf⟩gle"),
        ("\uff47ithub.com", "⟨unusual form: \uff47⟩ithub.com"),
        ("пр\u0061вет", "пр⟨Latin: a⟩вет"),
        ("⟨6 blanks⟩", "\\u27e86 blanks\\u27e9"),
        ("\x1b[31m\u202e", "\\x1b[31m\\u202e"),
    ],
)
def test_what_hides_or_poses_is_told(hidden: str, told: str) -> None:
    assert reveal(hidden) == told


@pytest.mark.parametrize(
    "text",
    [
        "git commit -m 'x' && npm test | tee log > out; echo $(date) `id`",
        "👨\u200d👩\u200d👧\u200d👦 ❤\ufe0f 👍🏽 🇩🇪 1\ufe0f\u20e3 🏳\ufe0f\u200d🌈 ✈\ufe0e ☺ ❤\ufe0f\u200d🔥",
        "می\u200cخواهم API\u200cها",
        "क्\u200dष श्री\u200cमान् ක්\u200dර",
        "ＡＢＣ\u3000日本語\u3000ｶﾅ\u3000テスト。\u3000",
        "GitHubで検索 API를 호출 ไทยGitHub",
        "Привет, мир! Ёлка",
        "скрипт.py",
        "ἀρχή λόγος",
        "Հայերեն ქართული",
        "café naïve ñandú Ťuhýk ngườ\u0302i n\u0303 œuvre ß",
        "שָׁלוֹם السَّلَامُ",
        "a \u2260 b, <\u0338",
        "⠓⠑⠇⠇⠕\u2800⠺",
        "\tif (x) {\n" + " " * 40 + "y\n\n\n\n}",
        "-" * 200,
    ],
)
def test_what_people_write_stays(text: str) -> None:
    assert reveal(text) == text


@given(TEXTS)
@example("\u0430a" * 30)
def test_told_once_nothing_is_left_to_tell_but_our_marks(text: str) -> None:
    once = reveal(text)
    # Our own escapes have Latin letters, beside which a word of another alphabet is another word.
    assume(all(token.isascii() or "\\" not in token for token in once.split()))
    again = reveal(once)
    for mark, escape in MARKS.items():
        once = once.replace(mark, escape)
    assert again == once


@given(TEXTS)
def test_it_tells_all_that_cleaning_tells(text: str) -> None:
    assert clean(reveal(text)) == reveal(text)


@given(st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="⟨⟩"), max_size=80))
def test_no_visible_character_is_lost_or_moved(text: str) -> None:
    shown = iter(reveal(text))
    lost = [char for char in text if clean(char) == char and char != "\u2800" and char not in shown]
    assert lost == []


@given(TEXTS)
@example("⟨6,000 blanks⟩⟨Cyrillic: x⟩")
def test_every_mark_is_one_of_ours(text: str) -> None:
    assert not MARKS.keys() & set(OUR_MARKS.sub("", reveal(text)))


@given(TEXTS, st.integers(1, 50))
def test_the_length_is_bounded(text: str, times: int) -> None:
    assert len(reveal(text * times)) <= 24 * max(1, len(text * times))
