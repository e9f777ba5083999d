from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import referencing
from hypothesis import given
from hypothesis import strategies as st

from opencode_connected.line import protocol
from opencode_connected.registration import OwnRegistration

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTRACT = Path(__file__).parents[2] / "contract"
GOLDEN = [json.loads(line) for line in (CONTRACT / "golden" / "line.jsonl").read_text("utf-8").splitlines()]
FROM_LAUNCHER = {"hello", "ping", "bye", "query", "probe"}


def validator() -> jsonschema.Draft202012Validator:
    registration = json.loads((CONTRACT / "registration.schema.json").read_text("utf-8"))
    line = json.loads((CONTRACT / "line.schema.json").read_text("utf-8"))
    registry: referencing.Registry[bool | Mapping[str, Any]] = referencing.Registry().with_resource(
        "registration.schema.json", referencing.Resource.from_contents(registration)
    )
    return jsonschema.Draft202012Validator(line, registry=registry)


@pytest.mark.parametrize("message", GOLDEN, ids=lambda message: message["type"])
def test_every_golden_message_follows_the_schema(message: dict[str, object]) -> None:
    validator().validate(message)


@pytest.mark.parametrize(
    "message", [m for m in GOLDEN if m["type"] not in FROM_LAUNCHER], ids=lambda message: message["type"]
)
def test_every_golden_message_of_a_relay_is_understood(message: dict[str, object]) -> None:
    decoded = protocol.decode(json.dumps(message).encode())

    assert decoded is not None
    assert decoded.model_dump(exclude_none=True, mode="json") == message


def test_what_the_launcher_sends_is_word_for_word_what_the_contract_says() -> None:
    golden = {message["type"]: message for message in GOLDEN if message["type"] in FROM_LAUNCHER}
    file = golden["hello"]["file"]

    sent = [
        protocol.hello(golden["hello"]["id"], OwnRegistration.model_validate(file)),
        protocol.ping(0),
        protocol.BYE,
        protocol.QUERY,
        protocol.probe(10001),
    ]

    lines = (CONTRACT / "golden" / "line.jsonl").read_bytes().splitlines(keepends=True)
    assert sent == [line for line in lines if json.loads(line)["type"] in FROM_LAUNCHER]


@pytest.mark.parametrize(
    "line",
    [
        b"Last login: Tue Nov 24",
        b"",
        b"[]",
        b"null",
        b'{"type":"pong","n":1}',
        b'{"type":"pong","n":"1","health":"ok"}',
        b'{"type":"pong","n":1,"health":"fine"}',
        b'{"type":"registered","name":"../../etc/passwd","health":"ok"}',
        b'{"type":"probed","port":80,"health":"ok"}',
        b'{"type":"surprise"}',
        b'{"type":"ready","v":1,"agent":"sh"',
        b'{"type":"ready","v":1,"agent":"\xff"}',
        b'{"type":"registration","file":[]}',
        b'{"type":"ready","v":1,"agent":' + b"[" * 5000,
        b'{"type":"ready","v":1,"agent":"' + b"x" * protocol.LINE_MAX + b'"}',
    ],
)
def test_noise_and_malformed_messages_are_dropped(line: bytes) -> None:
    assert protocol.decode(line) is None


def test_fields_and_text_that_a_terminal_would_act_upon_do_not_get_through() -> None:
    message = protocol.decode(b'{"type":"error","code":"bad-name","message":"a\\u001b[2Jb\\nc","later":"field"}')

    assert isinstance(message, protocol.RefusalReply)
    assert message.message == "a[2Jb c"


@given(st.binary(max_size=300))
def test_no_line_makes_the_decoder_fail(line: bytes) -> None:
    protocol.decode(line)


@given(st.lists(st.binary(max_size=40), max_size=20), st.data())
def test_lines_come_out_whole_however_the_stream_is_cut(lines: list[bytes], data: st.DataObject) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    stream = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    splitter = protocol.LineSplitter()

    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert [line for piece in pieces for line in splitter.feed(piece)] == lines


def test_a_line_without_end_is_dropped_and_the_next_one_is_not() -> None:
    splitter = protocol.LineSplitter()

    for _ in range(1000):
        assert splitter.feed(b"x" * 4096) == []
        assert len(splitter._rest) <= protocol.LINE_MAX
    assert splitter.feed(b"the end\n{}\n") == [b"{}"]


def test_a_registration_that_no_message_can_hold_is_an_error_that_says_so() -> None:
    long = OwnRegistration(
        name="n", hostname="h", port=1024, local_port=1024, cwd='"' * 4096, connected_at="2026-11-24T16:00:00Z"
    )
    assert len(protocol.hello("0" * 32, long)) < protocol.LINE_MAX

    with pytest.raises(ValueError, match="is the directory's path so long"):
        protocol.hello("0" * 32, long.model_copy(update={"cwd": "\x01" * 4096}))


def test_the_relay_program_is_one_line_of_plain_text() -> None:
    line = protocol.program("/tmp/it's $HOME `here` \\ \n")  # a path on the relay, never opened

    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert b"\0" not in line
