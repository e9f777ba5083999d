"""Files with a message: what may go together, how they are posted, and what helps where they are refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from opencode_fleet.agents.opencode1.prompts import prompt_parts
from opencode_fleet.agents.prompting import naming_files, prompt_timeout
from opencode_fleet.choices import Manner
from opencode_fleet.errors import Forbidden, Refused
from opencode_fleet.files import File, check_together, checked_file
from opencode_fleet.model import Prompt
from opencode_fleet.prompt_ids import new_prompt_id
from opencode_fleet.repeats import Call, Repeats, Sent
from support.fleet.pictures import PNG

TEXT = File("a.txt", "text/plain", b"hi")


def prompt(*files: File, id_: str = "") -> Prompt:
    return Prompt("ses_1", id_ or new_prompt_id(), "look", files=files)


def test_a_file_is_data_of_what_its_bytes_are() -> None:
    file = checked_file("shot.txt", PNG)
    assert (file.name, file.media_type) == ("shot.txt.png", "image/png")
    assert file.uri.startswith("data:image/png;base64,iVBORw0KGgo")
    with pytest.raises(Refused, match=r"the file .x\.exe. is none of what is taken.*Nothing was sent"):
        checked_file("x.exe", b"MZ\0")


def test_files_that_a_laptop_would_not_take_together_are_refused() -> None:
    half = File("a.png", "image/png", bytes(2_500_000))
    check_together("x" * 200_000, [half, half])
    with pytest.raises(Refused, match=r"5\.0 MB together"):
        check_together("", [half, half, TEXT])
    # As JSON each of these takes twelve bytes.
    with pytest.raises(Refused, match="shorten the message"):
        check_together("\U0001f30d" * 200_000, [half, half])


def test_parts_of_one_message_have_the_same_ids_whenever_it_is_posted_and_others_in_another() -> None:
    one = prompt(TEXT, TEXT)
    ids = [part["id"] for part in prompt_parts(one)]
    assert ids == [part["id"] for part in prompt_parts(one)]
    assert len(set(ids)) == 3
    assert ids == sorted(ids)
    assert all(len(each) == len(one.id) and each.startswith("prt_") for each in ids)
    last: list[dict[str, Any]] = prompt_parts(prompt(TEXT, id_="msg_ffffffffffff" + "a" * 14))
    assert last[1]["id"] == "prt_000000000000" + "a" * 14


def test_a_large_message_has_the_time_that_a_slow_line_takes() -> None:
    assert prompt_timeout(prompt()) is None
    assert prompt_timeout(prompt(File("a.png", "image/png", bytes(5_000_000)))) == pytest.approx(20 + 66.7, abs=0.1)


def test_a_guard_that_refuses_a_message_with_files_is_to_be_updated() -> None:
    with (
        pytest.raises(
            Forbidden, match=r"`files`; nothing was sent\. If it is for the files: update opencode-connected"
        ),
        naming_files(prompt(TEXT)),
    ):
        raise Forbidden("the body has `files`")
    with pytest.raises(Forbidden, match=r"^no right$"), naming_files(prompt()):
        raise Forbidden("no right")


async def test_the_same_words_with_another_file_are_another_message() -> None:
    repeats = Repeats()
    with_file = Call("laptop", None, "look", Manner(files=(TEXT,)))
    done = asyncio.get_running_loop().create_task(asyncio.sleep(0))
    repeats.cut(with_file, Sent(prompt(TEXT), done))
    assert (
        await repeats.take(Call("laptop", None, "look", Manner(files=(File("a.txt", "text/plain", b"ho"),)))) is None
    )
    assert await repeats.take(Call("laptop", None, "look")) is None
    found = await repeats.take(with_file)
    assert found is not None
    # Two hundred of them are remembered, and files may be large.
    assert found.prompt.files == ()
