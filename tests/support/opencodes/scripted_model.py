"""A scripted OpenAI-compatible model: the prompt says what the model does, so that a turn is certain.

The script is the last user message. Without any keyword the model streams ``echo: <prompt>``, word by word.

======================  ==================================================================================
``GATE:name``           in the text: stream up to here, wait until the test calls `ScriptedModel.release`
``SLOW:words:seconds``  that many words, so many seconds between two
``BIG:kb``              so many KiB of text
``THINK``               reasoning before the echo
``HANGMID``             a few words, then silence with the connection open
``HANGHDR``             not even response headers
``DROPMID``             a few words, then the connection ends without a finish reason
``FAIL503`` ``x2``      HTTP 503; with ``x2`` (``FAIL503x2``) only the first two times, then go on; with a
                        ``GATE:name`` until it is released. ``RETRYAFTER`` adds a ``retry-after: 1`` header
``[BASH:command]``      tool calls, one per step, then ``done. result: <last tool result>``; a ``GATE:name`` is
                        waited at after that text:
``[WRITE:path=text]``   ``[EDIT:path=old=new]`` ``[READ:path]`` ``[TODO:first;second]``
``[ASK:q;q…]``          questions, each with the options red and blue
``[CHOOSE:q=a|b…]``     a question of which several options may be chosen, with these labels
``[TASK:prompt]``       a subagent; its prompt may hold calls with ``{}`` in place of ``[]``
``PARALLEL``            all calls in one step
======================  ==================================================================================

A request without tools is OpenCode asking for a title: answered with plain text, keywords ignored.

Both generations of OpenCode take the same script: calls are made by the names of the tools that a request offers.
OpenCode 2 has no ``[TODO:…]``: the model calls a tool that is not there. After a restart of its service OpenCode 2
goes on with a note as the last user message, which the model echoes.

Run as a program (``python -m support.opencodes.scripted_model [--port N]``) it prints its base URL and serves until
it is interrupted. ``GET /prompts`` then lists the prompts that opened turns, ``POST /gates/name`` releases.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import socket
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from support.opencodes.scripted_calls import Offer, calls_of, offered

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

TITLE = "A scripted title"
"""What the model answers to a request for a title or a summary."""

_GATE = re.compile(r"GATE:([\w-]+)")
_FAIL = re.compile(r"FAIL(\d{3})(?:x(\d+))?")
_SLOW = re.compile(r"SLOW:(\d+):([\d.]+)")
_BIG = re.compile(r"BIG:(\d+)")


@dataclass(frozen=True)
class ModelRequest:
    """One request that the model got."""

    session: str
    """The OpenCode session it is for (empty if the client sent no such header)."""
    prompt: str
    """The text of the last user message: the script."""
    step: int
    """How many tool results follow that message: 0 for the first step of a turn."""
    for_title: bool
    """A request without tools: OpenCode wants a title or a summary."""
    messages: list[dict[str, Any]] = field(repr=False)
    """The whole conversation as sent, in OpenAI's format."""
    offer: Offer = field(repr=False)
    """The tools that the model may call."""

    @classmethod
    def parse(cls, body: dict[str, Any], session: str) -> ModelRequest:
        """Read a chat completion request."""
        messages: list[dict[str, Any]] = body["messages"]
        offer = offered(body)
        last_user = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
        return cls(
            session=session,
            prompt=_text(messages[last_user]) if last_user >= 0 else "",
            step=sum(m["role"] == "tool" for m in messages[last_user + 1 :]),
            for_title=not offer,
            messages=messages,
            offer=offer,
        )


class Gate:
    """A place in an answer: `reached` by the model, `opened` by the test."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()


class ScriptedModel:
    """The model as a server on a free loopback port; a context manager, in threads of its own.

    All methods may be called from any thread.

    Args:
        port: 0 takes a free one.
        titles: of conversations that have a text in them; others are `TITLE`.
    """

    def __init__(self, port: int = 0, titles: Mapping[str, str] | None = None) -> None:
        self._titles = titles or {}
        self._server = _Server(self, port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._lock = threading.Lock()
        self._gates: dict[str, Gate] = {}
        self._requests: list[ModelRequest] = []
        self._failures: Counter[tuple[str, str]] = Counter()
        self.stopping = threading.Event()
        """Set when the server ends: whatever hangs lets go."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def base_url(self) -> str:
        """The provider's `baseURL`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def requests(self) -> list[ModelRequest]:
        """All requests so far, oldest first."""
        with self._lock:
            return list(self._requests)

    def turns(self, text: str, session: str | None = None) -> list[ModelRequest]:
        """Return the requests that opened a turn whose prompt contains `text`: one per prompt sent once.

        With `session`, only those of that session: a model may be shared by tests that use the same words.
        """
        opened = [r for r in self.requests if not r.for_title and r.step == 0 and text in r.prompt]
        return [r for r in opened if session in (None, r.session)]

    def reached(self, gate: str) -> bool:
        """Tell whether an answer has arrived at the gate (everything before it is streamed)."""
        return self.gate(gate).reached.is_set()

    def release(self, gate: str) -> None:
        """Open the gate, for the answers that wait there and for all that come."""
        self.gate(gate).opened.set()

    def gate(self, name: str) -> Gate:
        """Return the gate of that name, closed if it is new."""
        with self._lock:
            return self._gates.setdefault(name, Gate())

    def record(self, request: ModelRequest) -> None:
        """Note a request."""
        with self._lock:
            self._requests.append(request)

    def title(self, request: ModelRequest) -> str:
        """Return the title of a conversation."""
        said = "\n".join(map(_text, request.messages))
        return next((title for text, title in self._titles.items() if text in said), TITLE)

    def must_fail(self, request: ModelRequest) -> int | None:
        """Return the HTTP status to fail `request` with, if its script wants that (still)."""
        match = _FAIL.search(request.prompt)
        if match is None or request.for_title:
            return None
        if gate := _GATE.search(request.prompt):
            return None if self.gate(gate[1]).opened.is_set() else int(match[1])
        with self._lock:
            key = (request.session, request.prompt)
            self._failures[key] += 1
            if match[2] and self._failures[key] > int(match[2]):
                return None
        return int(match[1])


class _Server(ThreadingHTTPServer):
    """The listener; one thread per request."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, model: ScriptedModel, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.model = model

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that went away: an aborted turn does just that."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request and closes."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Stay silent."""

    def do_GET(self) -> None:
        """List the prompts."""
        self._answer(200, [turn.prompt for turn in self.server.model.turns("")])

    def do_POST(self) -> None:
        """Answer a chat completion, or release a gate."""
        self.close_connection = True
        if self.path.startswith("/gates/"):
            self.server.model.release(self.path.removeprefix("/gates/"))
            self._answer(200, None)
            return
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        request = ModelRequest.parse(body, self.headers.get("x-session-id", ""))
        model = self.server.model
        model.record(request)
        prompt = "" if request.for_title else request.prompt
        if "HANGHDR" in prompt:
            self._hang()
            return
        if status := model.must_fail(request):
            self._fail(status, retry_after="RETRYAFTER" in prompt)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        if request.for_title:
            self._finish_with(model.title(request))
        elif "HANGMID" in prompt:
            self._say("some words ")
            self._hang()
        elif "DROPMID" in prompt:
            self._say("some words ")
        elif calls := _calls(request):
            self._call(calls)
        elif request.step:
            self._say(f"done. result: {_text(request.messages[-1])}")
            if all(self._pass(name) for name in _GATE.findall(prompt)):
                self._finish("stop")
        else:
            self._speak(prompt)

    def _speak(self, prompt: str) -> None:
        if "THINK" in prompt:
            for word in ("let ", "me ", "think."):
                self._delta({"reasoning_content": word})
        if match := _SLOW.search(prompt):
            for number in range(1, int(match[1]) + 1):
                self._say(f"word{number} ")
                self.server.model.stopping.wait(float(match[2]))
            self._finish("stop")
        elif match := _BIG.search(prompt):
            for _ in range(int(match[1])):
                self._say("0123456789abcde\n" * 64)
            self._finish("stop")
        else:
            self._echo(prompt)

    def _echo(self, prompt: str) -> None:
        self._say("echo: ")
        before, *rest = _GATE.split(prompt)
        self._words(before)
        for name, after in zip(rest[::2], rest[1::2], strict=True):
            if not self._pass(name):
                return
            self._words(after)
        self._finish("stop")

    def _pass(self, name: str) -> bool:
        """Wait at a gate; false if there is nobody left to speak to."""
        gate = self.server.model.gate(name)
        gate.reached.set()
        return self._wait(gate.opened)

    def _words(self, text: str) -> None:
        for word in re.findall(r"\s*\S+|\s+$", text):
            self._say(word)

    def _call(self, calls: list[tuple[str, dict[str, Any]]]) -> None:
        for index, (name, arguments) in enumerate(calls):
            function = {"name": name, "arguments": json.dumps(arguments)}
            identity = f"call_{threading.get_ident()}_{index}"
            call = {"index": index, "id": identity, "type": "function", "function": function}
            self._delta({"tool_calls": [call]})
        self._finish("tool_calls")

    def _finish_with(self, text: str) -> None:
        self._say(text)
        self._finish("stop")

    def _say(self, text: str) -> None:
        self._delta({"role": "assistant", "content": text})

    def _delta(self, delta: dict[str, Any]) -> None:
        self._chunk({"choices": [{"index": 0, "delta": delta}]})

    def _finish(self, reason: str) -> None:
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self._chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _chunk(self, chunk: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def _fail(self, status: int, *, retry_after: bool) -> None:
        self._answer(status, {"error": {"message": f"scripted failure {status}"}}, retry_after=retry_after)

    def _answer(self, status: int, content: object, *, retry_after: bool = False) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        if retry_after:
            self.send_header("retry-after", "1")
        self.end_headers()
        self.wfile.write(body)

    def _hang(self) -> None:
        self._wait(threading.Event())

    def _wait(self, event: threading.Event) -> bool:
        """Wait for `event`; false if the client went away or the server stops first."""
        while not event.wait(0.02):
            if self.server.model.stopping.is_set() or _gone(self.connection):
                return False
        return True


def _gone(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and not connection.recv(1, socket.MSG_PEEK)


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return str(content or "")


def _calls(request: ModelRequest) -> list[tuple[str, dict[str, Any]]]:
    """Return the tool calls (name, arguments) that the script wants in this step."""
    calls = calls_of(request.prompt, request.offer)
    if "PARALLEL" in request.prompt:
        return [] if request.step else calls
    return calls[request.step : request.step + 1]


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A scripted OpenAI-compatible model on loopback.")
    parser.add_argument("--port", type=int, default=0)
    with ScriptedModel(parser.parse_args().port) as model:
        print(model.base_url, flush=True)
        try:
            model.stopping.wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
