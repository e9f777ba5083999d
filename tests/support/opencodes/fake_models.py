"""A model that calls one tool and then repeats what it answered, in the three dialects that coding agents speak.

`/v1/messages` (Claude Code), `/v1/responses` (Codex) and `/v1/chat/completions` (OpenCode). It notes which tools each
request offers: that is what an agent made of a server's list.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

_ID = "call_1"


class CallingModel:
    """Calls the tool whose name ends with `tool` with `arguments`, once; without either it calls none.

    A context manager on a free loopback port.
    """

    def __init__(self, tool: str | None = None, arguments: dict[str, Any] | None = None) -> None:
        self.tool, self.arguments = tool, arguments or {}
        self.offered: set[str] = set()
        """Names of tools, as the agent calls them."""
        self.asked: list[str] = []
        """Each request, as JSON."""
        self.results: list[str] = []
        """What came back of its calls."""
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                model.asked.append(json.dumps(body))
                events = list(model._answer(self.path.partition("?")[0], body))
                self.send_response(200 if events else 404)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                for name, event in events:
                    self.wfile.write(f"event: {name}\ndata: {json.dumps(event)}\n\n".encode())

            def log_message(self, *_: object) -> None:
                """Stay silent."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, path: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        dialects = {"/v1/messages": _messages, "/v1/responses": _responses, "/v1/chat/completions": _completions}
        return dialects[path](self, body) if path in dialects else iter(())

    def _call(self, offered: Iterator[str], result: str | None) -> str | None:
        """Note a request; return the tool to call, or None where it is time to say something."""
        names = set(offered)
        self.offered |= names
        if result is not None:
            self.results.append(result)
            return None
        return next((name for name in sorted(names) if self.tool and name.endswith(self.tool)), None)


def _messages(model: CallingModel, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    content = [
        part for message in body["messages"] if isinstance(message["content"], list) for part in message["content"]
    ]
    results = [json.dumps(part.get("content")) for part in content if part["type"] == "tool_result"]
    tool = model._call((each["name"] for each in body.get("tools") or []), results[-1] if results else None)
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": []}
    yield "message_start", {"type": "message_start", "message": {**message, "stop_reason": None, "usage": usage}}
    if tool:
        block: dict[str, Any] = {"type": "tool_use", "id": _ID, "name": tool, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(model.arguments)}
    else:
        block, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": f"done {results}"}
    yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}
    yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
    yield "content_block_stop", {"type": "content_block_stop", "index": 0}
    why = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
    yield "message_delta", {"type": "message_delta", "delta": why, "usage": usage}
    yield "message_stop", {"type": "message_stop"}


def _responses(model: CallingModel, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    results = [str(item["output"]) for item in body["input"] if item.get("type") == "function_call_output"]
    spaces = {
        f"{tool['name']}{inner['name']}": (tool["name"], inner["name"])
        for tool in body.get("tools") or []
        if tool["type"] == "namespace"
        for inner in tool["tools"]
    }
    plain = {tool["name"] for tool in body.get("tools") or [] if tool["type"] == "function"}
    tool = model._call(iter(plain | spaces.keys()), results[-1] if results else None)
    if tool:
        space, name = spaces.get(tool, (None, tool))
        item: dict[str, Any] = {
            "type": "function_call",
            "call_id": _ID,
            "name": name,
            "arguments": json.dumps(model.arguments),
        }
        item |= {"namespace": space} if space else {}
    else:
        text = {"type": "output_text", "text": f"done {results}"}
        item = {"type": "message", "role": "assistant", "id": "msg_1", "content": [text]}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    yield "response.created", {"type": "response.created", "response": {"id": "resp_1"}}
    yield "response.output_item.done", {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield "response.completed", {"type": "response.completed", "response": {"id": "resp_1", "usage": usage}}


def _completions(model: CallingModel, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    results = [str(message["content"]) for message in body["messages"] if message["role"] == "tool"]
    tools = (each["function"]["name"] for each in body.get("tools") or [])
    tool = model._call(tools, results[-1] if results else None)
    if tool:
        function = {"name": tool, "arguments": json.dumps(model.arguments)}
        delta: dict[str, Any] = {"tool_calls": [{"index": 0, "id": _ID, "type": "function", "function": function}]}
    else:
        delta = {"role": "assistant", "content": f"done {results}"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    yield "message", {"choices": [{"index": 0, "delta": delta}]}
    end = {"index": 0, "delta": {}, "finish_reason": "tool_calls" if tool else "stop"}
    yield "message", {"choices": [end], "usage": usage}
