"""Texts that a person decides on, with everything in them that hides or poses as something else made visible.

Beyond `text.clean`: joiners, variation selectors and blanks away from the scripts and emoji that use them, marks that
strike letters out, long runs of blanks, and letters of one alphabet among those of another. What is added stands in
`⟨ ⟩`; where these come from outside they are escaped, so that no text can bring marks of its own.
"""

from __future__ import annotations

from typing import Final

import regex

from opencode_common.text import UNSAFE, escaped

MAX_COLUMNS: Final = 60
"""Columns of blanks in a row that are shown as they are; a tab counts eight."""
MAX_EMPTY_LINES: Final = 8
MAX_SAME: Final = 3
"""The same odd character in a row, escaped one by one; more are counted."""

# Scripts whose words take U+200C and U+200D, with the marks that they share.
_JOINING = (
    r"\p{scx=Arabic}\p{scx=Syriac}\p{scx=Nko}\p{scx=Mongolian}\p{scx=Thaana}\p{scx=Adlam}\p{scx=Mandaic}"
    r"\p{scx=Devanagari}\p{scx=Bengali}\p{scx=Gurmukhi}\p{scx=Gujarati}\p{scx=Oriya}\p{scx=Tamil}\p{scx=Telugu}"
    r"\p{scx=Kannada}\p{scx=Malayalam}\p{scx=Sinhala}\p{scx=Khmer}\p{scx=Myanmar}\p{scx=Chakma}"
)
_WIDE = r"\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Hangul}\p{scx=Bopomofo}\uff01-\uff60"
_GENERIC_MARK = r"[\p{Mn}&&\p{sc=Inherited}]"

_KEPT = "|".join(
    (
        # Emoji: with a selector, a skin colour, joined to others.
        r"\p{ExtPict}[\ufe0e\ufe0f]?\p{EMod}?(?:\u200d\p{ExtPict}\ufe0f?\p{EMod}?)*",
        r"[0-9#*]\ufe0f?\u20e3",
        rf"(?<=[{_JOINING}])[\u200c\u200d](?![\u200c\u200d])|(?<![\u200c\u200d])[\u200c\u200d](?=[{_JOINING}])",
        r"(?<=[\p{Han}\p{Sm}\p{Myanmar}])[\ufe00-\ufe02](?![\ufe00-\ufe0f])",
        # The strike of ≠ and its like.
        r"(?<=\p{Sm})\u0338(?!\p{M})",
        # Blanks as wide as the letters beside them.
        rf"(?<=[{_WIDE}])\u3000{{1,2}}(?!\u3000)|(?<!\u3000)\u3000{{1,2}}(?=[{_WIDE}])",
        r"(?<=[\u2801-\u28ff])\u2800(?!\u2800)|(?<!\u2800)\u2800(?=[\u2801-\u28ff])",
    )
)
_ODD = "|".join(
    (
        rf"{UNSAFE.pattern}|\p{{DI}}|\p{{Co}}",
        r"[\u200c\u200d\ufe00-\ufe0f\u00a0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000\U0001d159]",
        r"[\u0335-\u0338\u20d2\u20d3\u20d8-\u20da\u20dd-\u20e6\u20ea\u20eb]",
        # More marks on one letter than any language puts there.
        rf"(?<={_GENERIC_MARK}{{3}}){_GENERIC_MARK}",
        r"[⟨⟩]",
    )
)
# Nearly all characters are looked at no further.
_LOOKED_AT = r"[\p{M}\p{S}\p{C}\p{Z}\p{DI}\p{ExtPict}0-9#*⟨⟩--[ \n\t]]"
_PIECE = regex.compile(rf"(?={_LOOKED_AT})(?:(?P<kept>{_KEPT})|(?P<odd>{_ODD})(?P=odd)*)", regex.V1)

# Alphabets whose letters look like those of another. A name stands in the mark; letters of one group go together.
_ALPHABETS: Final = {
    "unusual_form": r"[\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7cb\u2100-\u214f\ufb00-\ufb06]",
    "Latin": r"\p{Latin}",
    "Cyrillic": r"\p{Cyrillic}",
    "Greek": r"\p{Greek}",
    "Armenian": r"\p{Armenian}",
    "Cherokee": r"\p{Cherokee}",
    "Coptic": r"\p{Coptic}",
    "Georgian": r"\p{Georgian}",
    "Lisu": r"\p{Lisu}",
    "Deseret": r"\p{Deseret}",
    "Gothic": r"\p{Gothic}",
    "Old_Italic": r"\p{Old_Italic}",
    "Osage": r"\p{Osage}",
}
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}\u200c\u200d]*")
_RUN = regex.compile("|".join(rf"(?P<{name}>(?:{letter}\p{{M}}*)+)" for name, letter in _ALPHABETS.items()))
_TOKEN = regex.compile(r"\S+")
_LATIN = regex.compile(r"\p{Latin}")
_LOOKALIKES = frozenset(
    "\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u041a\u041c\u041e\u0420\u0405\u0422\u0425\u0423\u0417\u0430"
    "\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u051b\u051d\u04bb\u04cf\u0391\u0392\u0395"
    "\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03b1\u03bd\u03bf\u03c1\u03c5\u03b9"
    "\u03ba\u03c4\u03b3\u03c9\u0585\u057d\u0570\u0578\u0581\u054f\u053c"
)
"""Letters of other alphabets that are drawn like Latin ones."""

_BLANKS = regex.compile(r"[ \t]{8,}")
_EMPTY_LINES = regex.compile(rf"\n(?:[ \t]*\n){{{MAX_EMPTY_LINES + 1},}}")


def reveal(text: str) -> str:
    """Return `text`, cleaned like `text.clean`, and tell what a person would not see or take for something else.

    Every visible character of `text` stays, in its order, but `⟨` and `⟩`, which come out escaped. Takes time in
    proportion to the length; the result may be some twenty times as long.
    """
    text = text.replace("\r\n", "\n")
    shown: list[str] = []
    begin = 0
    for piece in _PIECE.finditer(text):
        if piece["kept"] is None:
            shown += [_marked(text[begin : piece.start()]), _told(piece[0])]
            begin = piece.end()
    shown.append(_marked(text[begin:]))
    return _EMPTY_LINES.sub(_empty_lines, _BLANKS.sub(_blanks, "".join(shown)))


def _told(run: str) -> str:
    """Return a run of one odd character, escaped or counted."""
    return escaped(run[0]) * len(run) if len(run) <= MAX_SAME else f"⟨{len(run):,} times U+{ord(run[0]):04X}⟩"


def _blanks(run: regex.Match[str]) -> str:
    columns = len(run[0]) + 7 * run[0].count("\t")
    return run[0] if columns <= MAX_COLUMNS else f" ⟨{len(run[0]):,} blanks⟩ "


def _empty_lines(run: regex.Match[str]) -> str:
    return f"\n⟨{run[0].count(chr(10)) - 1:,} empty lines⟩\n"


def _marked(text: str) -> str:
    """Return `text` with letters told that stand among those of another alphabet."""
    return text if text.isascii() else _TOKEN.sub(_marked_token, text)


def _marked_token(token: regex.Match[str]) -> str:
    if token[0].isascii():
        return token[0]
    has_latin = _LATIN.search(token[0]) is not None
    return _WORD.sub(lambda word: _marked_word(word[0], has_latin=has_latin), token[0])


def _marked_word(word: str, *, has_latin: bool) -> str:
    if word.isascii():
        return word
    letters: dict[str, int] = {}
    for run in _RUN.finditer(word):
        letters[str(run.lastgroup)] = letters.get(str(run.lastgroup), 0) + len(run[0])
    if not letters:
        return word
    # Latin is the one that is meant where neither prevails.
    main = max(letters, key=lambda name: (letters[name], name == "Latin"))
    if len(letters) == 1 and has_latin and main != "Latin" and _LOOKALIKES.issuperset(word):
        main = ""
    return _RUN.sub(lambda run: run[0] if run.lastgroup == main else _alphabet(run), word)


def _alphabet(run: regex.Match[str]) -> str:
    return f"⟨{str(run.lastgroup).replace('_', ' ')}: {run[0]}⟩"
