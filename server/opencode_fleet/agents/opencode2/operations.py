"""Where OpenCode 2's operations are today: their paths and body keys move between its versions, their names do not.

They are read from the server's own OpenAPI document. What cannot be found, or takes other keys than we know, is
missing: keys that it does not know are ignored there, so that a call might do something else than was meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from opencode_common.text import one_line
from opencode_fleet.errors import BadAnswer, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BUILT_IN_VERSION: Final = "2.0.15"
"""The version whose operations are known without a look at its document, of 250 KB."""
_PATH = re.compile(r"(/[A-Za-z0-9_-]+|/\{[A-Za-z0-9_]+\})+")
_PARAMETER = re.compile(r"\{[A-Za-z0-9_]+\}")
_MAX_PATH: Final = 200


@dataclass(frozen=True, slots=True)
class KnownOperations:
    """An operation as this server knows it: as it is in `BUILT_IN_VERSION`."""

    name: str
    method: str
    path: str
    verb: str
    """How the guard calls what it is for."""
    keys: tuple[str, ...] = ()
    """What its body must take."""
    choices: tuple[str, ...] = ()
    """Names that one more key of its body has had, the newest first."""
    is_vital: bool = False
    """Without it nothing can be shown."""


_SESSION: Final = "/api/session/{sessionID}"
KNOWN: Final = (
    KnownOperations("event.subscribe", "GET", "/api/event", "events", is_vital=True),
    KnownOperations("session.list", "GET", "/api/session", "sessions", is_vital=True),
    KnownOperations("session.get", "GET", _SESSION, "session", is_vital=True),
    KnownOperations("session.active", "GET", "/api/session/active", "status", is_vital=True),
    KnownOperations("session.message.list", "GET", f"{_SESSION}/message", "messages", is_vital=True),
    KnownOperations("session.message.get", "GET", f"{_SESSION}/message/{{messageID}}", "messages"),
    KnownOperations("session.inbox.list", "GET", f"{_SESSION}/inbox", "inbox"),
    KnownOperations("session.permission.list", "GET", f"{_SESSION}/permission", "asks", is_vital=True),
    KnownOperations("session.form.list", "GET", f"{_SESSION}/form", "asks"),
    KnownOperations("session.diff", "GET", f"{_SESSION}/diff", "diff"),
    KnownOperations("vcs.get", "GET", "/api/vcs", "vcs"),
    KnownOperations("vcs.status", "GET", "/api/vcs/status", "vcs"),
    KnownOperations("vcs.diff", "GET", "/api/vcs/diff", "vcs"),
    KnownOperations("agent.list", "GET", "/api/agent", "agent"),
    KnownOperations("model.list", "GET", "/api/model", "model"),
    KnownOperations("command.list", "GET", "/api/command", "commands"),
    KnownOperations("session.command", "POST", f"{_SESSION}/command", "command", ("name", "text")),
    KnownOperations("session.switchAgent", "POST", f"{_SESSION}/agent", "agent", ("agent",)),
    KnownOperations("session.switchModel", "POST", f"{_SESSION}/model", "model", ("model",)),
    KnownOperations("session.create", "POST", "/api/session", "create", ("location",)),
    KnownOperations("session.prompt", "POST", f"{_SESSION}/prompt", "prompt", ("id", "text", "delivery")),
    KnownOperations("session.update", "PATCH", _SESSION, "rename", ("title",)),
    KnownOperations("session.fork", "POST", f"{_SESSION}/fork", "fork"),
    KnownOperations("session.compact", "POST", f"{_SESSION}/compact", "compact", ("id",)),
    KnownOperations("session.revert.stage", "POST", f"{_SESSION}/revert/stage", "undo", ("messageID", "files")),
    KnownOperations("session.revert.clear", "DELETE", f"{_SESSION}/revert", "undo"),
    KnownOperations("session.interrupt", "POST", f"{_SESSION}/interrupt", "abort"),
    KnownOperations(
        "session.permission.reply",
        "POST",
        f"{_SESSION}/permission/{{requestID}}/reply",
        "reply",
        choices=("decision", "reply"),
    ),
    KnownOperations("session.form.reply", "POST", f"{_SESSION}/form/{{formID}}/reply", "reply", ("answer",)),
    KnownOperations("session.form.cancel", "DELETE", f"{_SESSION}/form/{{formID}}", "reply"),
)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation as the agent has it."""

    method: str
    path: str
    verb: str
    choice: str = ""
    """The name of the key that has had several."""

    def fill(self, ids: tuple[str, ...]) -> str:
        """Return the path with `ids` in it, in their order."""
        given = iter(ids)
        return _PARAMETER.sub(lambda _: next(given), self.path)


class Operations:
    """What one agent can do. It is small: the document that it comes from is not kept."""

    def __init__(self, version: str, found: dict[str, Operation]) -> None:
        self._version = version
        self._found = found

    @classmethod
    def built_in(cls, version: str) -> Operations:
        """Return the operations as they are in `BUILT_IN_VERSION`, also for where the document is not to be had."""
        return cls(version, {k.name: Operation(k.method, k.path, k.verb, *k.choices[:1]) for k in KNOWN})

    @classmethod
    def read(cls, version: str, document: object) -> Operations:
        """Return the operations that an OpenAPI document names.

        Raises:
            BadAnswer: without one that it does not name, or that takes other keys, nothing can be shown.
        """
        named = _named(document)
        schemas = _dict(_dict(_dict(document).get("components")).get("schemas"))
        found = {
            known.name: operation
            for known in KNOWN
            if (operation := _resolve(known, named.get(known.name), schemas)) is not None
        }
        missing = [known.name for known in KNOWN if known.is_vital and known.name not in found]
        if missing:
            raise BadAnswer(
                f"OpenCode {one_line(version, 40)} there cannot be driven: it has no {', '.join(missing)} as this "
                "server knows it; update the server, or use another version of OpenCode there"
            )
        return cls(version, found)

    def find(self, name: str) -> Operation:
        """Return the operation of that name.

        Raises:
            Refused: this version does not have it.
        """
        operation = self._found.get(name)
        if operation is None:
            raise Refused(
                f"OpenCode {one_line(self._version, 40)} there has no {name} as this server knows it, so this cannot "
                "be done from here; update the server, or do it on the machine itself"
            )
        return operation


def _named(document: object) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Return method, path and description of each operation, by its name; the first of a name counts."""
    named: dict[str, tuple[str, str, dict[str, Any]]] = {}
    for path, methods in _dict(_dict(document).get("paths")).items():
        for method, operation in _dict(methods).items():
            name = _dict(operation).get("operationId")
            if isinstance(name, str):
                named.setdefault(name, (method.upper(), path, operation))
    return named


def _resolve(
    known: KnownOperations, told: tuple[str, str, dict[str, Any]] | None, schemas: Mapping[str, Any]
) -> Operation | None:
    if told is None:
        return None
    method, path, operation = told
    parameters = len(_PARAMETER.findall(path))
    if (
        len(path) > _MAX_PATH
        or not _PATH.fullmatch(path)
        or parameters != len(_PARAMETER.findall(known.path))
        or (method == "GET") != (known.method == "GET")
        or method not in {"GET", "POST", "PUT", "PATCH", "DELETE"}
    ):
        return None
    keys = set(_body_keys(operation, schemas))
    choice = next((key for key in known.choices if key in keys), "")
    if not keys.issuperset(known.keys) or (known.choices and not choice):
        return None
    return Operation(method, path, known.verb, choice)


def _body_keys(operation: dict[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    content = _dict(_dict(operation.get("requestBody")).get("content"))
    yield from _keys(_dict(_dict(content.get("application/json")).get("schema")), schemas, depth=3)


def _keys(schema: dict[str, Any], schemas: Mapping[str, Any], depth: int) -> Iterator[str]:
    yield from _dict(schema.get("properties"))
    if depth == 0:
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        yield from _keys(_dict(schemas.get(reference.rpartition("/")[2])), schemas, depth - 1)
    for kind in ("anyOf", "oneOf", "allOf"):
        variants = schema.get(kind)
        for variant in variants[:20] if isinstance(variants, list) else []:
            yield from _keys(_dict(variant), schemas, depth - 1)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
