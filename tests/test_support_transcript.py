"""What a transcript leaves out, and what it keeps."""

from __future__ import annotations

from support.chat.transcript import Tidy


def test_what_differs_from_run_to_run_stands_there_by_its_first_appearance() -> None:
    tidy = Tidy({"/tmp/x": "~", "/tmp/x/api": "~/api"})
    first = tidy.text("s41 “a title” ses_0a1b2c3d · /tmp/x/api · 4 min ago\nCursor: k7m2xp.12")
    assert first == "s1 “a title” ses_1 · ~/api · now\nCursor: …"
    again = tidy.call("send", {"instance": ["a", "b"], "session": "s41", "cursor": "k7m2xp.12", "details": True})
    assert again == 'send(instance=["a", "b"], session="s1", cursor="…", details=True)'
    assert tidy.text("s42 ses_ffffffff p0a1b2c3d") == "s2 ses_2 p1"


def test_delimiters_become_none_around_lines_and_quotes_within_one() -> None:
    mark = "untrusted-0123456789ab"
    assert Tidy({}).text(f"<{mark}>\nlaptop: idle\n</{mark}>\nits title is <{mark}>a</{mark}>.") == (
        "laptop: idle\nits title is “a”."
    )
