"""The tool calls of the scripted model: the same keywords in the words of either generation of OpenCode."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CALL = re.compile(r"\[(BASH|WRITE|EDIT|READ|ASK|CHOOSE|TASK|TODO):([^\]]*)\]")

Offer = dict[str, frozenset[str]]
"""The tools that a request offers: the name of each, and the names of its arguments."""


def offered(body: Mapping[str, Any]) -> Offer:
    """Read which tools a chat completion request offers."""
    functions = [tool["function"] for tool in body.get("tools") or []]
    return {each["name"]: frozenset(each["parameters"].get("properties", {})) for each in functions}


def calls_of(script: str, offer: Offer) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls (name, arguments) that the script wants, in order, as the offer names tools and arguments."""
    return [_call(kind, text, offer) for kind, text in _CALL.findall(script)]


def _call(kind: str, text: str, offer: Offer) -> tuple[str, dict[str, Any]]:
    arguments: dict[str, Any]
    match kind:
        case "BASH" if "shell" in offer:
            name, arguments = "shell", {"command": text}
        case "BASH":
            name, arguments = "bash", {"command": text, "description": "scripted"}
        case "READ":
            name, arguments = "read", {_path("read", offer): text}
        case "WRITE":
            path, content = text.split("=", 1)
            name, arguments = "write", {_path("write", offer): path, "content": content}
        case "EDIT":
            path, old, new = text.split("=", 2)
            name, arguments = "edit", {_path("edit", offer): path, "oldString": old, "newString": new}
        case "ASK":
            name, arguments = "question", {"questions": list(_questions(text))}
        case "CHOOSE":
            question, labels = text.split("=", 1)
            options = [{"label": label, "description": label} for label in labels.split("|")]
            asked = {"question": question, "header": question[:12], "options": options, "multiple": True}
            name, arguments = "question", {"questions": [asked]}
        case "TASK":
            prompt = text.replace("{", "[").replace("}", "]")
            name, agent = ("subagent", "agent") if "subagent" in offer else ("task", "subagent_type")
            arguments = {"description": "scripted", "prompt": prompt, agent: "general"}
        case _:
            todos = [{"content": item, "status": "pending", "priority": "low"} for item in text.split(";")]
            name, arguments = "todowrite", {"todos": todos}
    return name, arguments


def _path(tool: str, offer: Offer) -> str:
    return "path" if "path" in offer.get(tool, ()) else "filePath"


def _questions(text: str) -> Iterator[dict[str, Any]]:
    options = [{"label": colour, "description": f"choose {colour}"} for colour in ("red", "blue")]
    for question in text.split(";"):
        yield {"question": question, "header": question[:12], "options": options}
