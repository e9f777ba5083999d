"""What is let through to OpenCode 2, whose one service is of all directories of a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_connected.guard import filters
from opencode_connected.guard.bodies import (
    MAX_FILES,
    array,
    boolean,
    data_url,
    either,
    fields,
    identifier,
    mapping,
    metadata,
    one_of,
    scalar,
    text,
)
from opencode_connected.guard.policy import MAX_DIRECTORY, Right
from opencode_connected.guard.routes import MAX_PROMPT, Api, Route, Scope, member
from opencode_connected.guard.thinned2 import MESSAGES, Thinner2
from opencode_connected.guard.thinning import WHOLE, patches

if TYPE_CHECKING:
    from collections.abc import Mapping

_SESSION = "/api/session/{session}"
_LOCATION = fields({"directory": text(MAX_DIRECTORY)}, "directory")
_MODEL = fields({"id": text(200), "providerID": text(200), "variant": text(200)}, "id", "providerID")
_DELIVERY = one_of("steer", "queue")
_CREATE = fields(
    {
        "id": identifier,
        "title": text(400),
        "agent": text(200),
        "model": _MODEL,
        "location": _LOCATION,
        "metadata": metadata,
    },
    "location",
)
_FILE = fields({"uri": data_url, "name": text(400), "description": text(2000)}, "uri")
_PROMPT = fields(
    {
        "id": identifier,
        "text": text(MAX_PROMPT),
        "files": array(_FILE, MAX_FILES),
        "delivery": _DELIVERY,
        "resume": boolean,
        "metadata": metadata,
    },
    "text",
)
_COMMAND = fields({"name": text(200), "text": text(MAX_PROMPT)}, "name", "text")
# Clients of different versions say `reply` or `decision`.
_DECISION = one_of("once", "always", "reject")
_REPLY = fields({"decision": _DECISION, "reply": _DECISION, "message": text(100_000)})
_ANSWER = fields({"answer": mapping(either(array(text(100_000), 100), scalar(100_000)), 100)}, "answer")
_NOTHING = fields({})
_LIST = {
    "limit": text(6),
    "order": one_of("asc", "desc"),
    "search": text(400),
    "parentID": text(80),
    "project": text(100),
    "cursor": text(2000),
}
_PAGE = {"limit": text(6), "order": one_of("asc", "desc"), "cursor": text(2000)}
_CHANGES = {"location": WHOLE, "data": patches}
_DIFF = {"from": identifier, "to": identifier, "context": text(6)}


def _reply_right(body: Mapping[str, object]) -> Right:
    return Right.ALWAYS if "always" in (body.get("decision"), body.get("reply")) else Right.APPROVE


def _session_directory(answer: object) -> str | None:
    directory = member(answer, "data", "location", "directory")
    return directory if isinstance(directory, str) else None


API = Api(
    generation=2,
    directory_key="location[directory]",
    decodes_twice=False,
    own_directory=None,
    session=_SESSION,
    commands="/api/command",
    session_directory=_session_directory,
    health="/api/info",
    filters_events=True,
    thinner=Thinner2,
    routes=(
        Route("GET", "/api/info", "health", answer=filters.info),
        Route("GET", "/openapi.json", "openapi"),
        Route("GET", "/api/event", "events", is_stream=True),
        Route(
            "GET",
            "/api/session",
            "sessions",
            scope=Scope.FILTER,
            directory_key="directory",
            query=_LIST,
            answer=filters.sessions("location", "directory"),
        ),
        Route("GET", "/api/session/active", "status", answer=filters.active),
        Route("GET", "/api/agent", "agent", scope=Scope.QUERY, answer=filters.agents),
        Route("GET", "/api/command", "commands", scope=Scope.QUERY, answer=filters.commands),
        Route("GET", "/api/model", "model", scope=Scope.QUERY, answer=filters.models),
        Route(
            "GET",
            "/api/worktree",
            "worktrees",
            query={"projectID": identifier},
            answer=filters.listed("directory"),
        ),
        Route("GET", "/api/vcs", "vcs", scope=Scope.QUERY),
        Route("GET", "/api/vcs/status", "vcs", scope=Scope.QUERY),
        Route(
            "GET",
            "/api/vcs/diff",
            "vcs",
            scope=Scope.QUERY,
            query={"mode": one_of("working", "branch", "committed"), "context": text(6)},
            shape=_CHANGES,
        ),
        Route("GET", "/api/permission/request", "asks", scope=Scope.QUERY),
        Route("GET", "/api/form", "asks", scope=Scope.QUERY),
        Route("GET", _SESSION, "session", scope=Scope.SESSION, answer=filters.session),
        Route(
            "GET",
            f"{_SESSION}/message",
            "messages",
            scope=Scope.SESSION,
            query={**_PAGE, "type": text(40)},
            shape=MESSAGES,
        ),
        Route("GET", f"{_SESSION}/message/{{message}}", "messages", scope=Scope.SESSION),
        Route("GET", f"{_SESSION}/inbox", "inbox", scope=Scope.SESSION),
        Route("GET", f"{_SESSION}/permission", "asks", scope=Scope.SESSION),
        Route("GET", f"{_SESSION}/form", "asks", scope=Scope.SESSION),
        Route("GET", f"{_SESSION}/permission/{{ask}}", "asks", scope=Scope.SESSION),
        Route("GET", f"{_SESSION}/form/{{ask}}", "asks", scope=Scope.SESSION),
        Route("GET", f"{_SESSION}/diff", "diff", scope=Scope.SESSION, query=_DIFF, shape=_CHANGES),
        Route("POST", "/api/session", "create", Right.DRIVE, Scope.BODY, body=_CREATE),
        Route(
            "PATCH",
            _SESSION,
            "rename",
            Right.DRIVE,
            Scope.SESSION,
            body=fields({"title": text(400), "metadata": metadata}),
        ),
        Route(
            "POST",
            f"{_SESSION}/prompt",
            "prompt",
            Right.DRIVE,
            Scope.SESSION,
            body=_PROMPT,
            max_body=MAX_PROMPT,
        ),
        Route(
            "POST",
            f"{_SESSION}/command",
            "command",
            Right.DRIVE,
            Scope.SESSION,
            command=("name", "text"),
            body=_COMMAND,
        ),
        Route(
            "POST",
            f"{_SESSION}/interrupt",
            "abort",
            Right.DRIVE,
            Scope.SESSION,
            query={"resume": one_of("true", "false")},
            body=_NOTHING,
        ),
        Route(
            "POST",
            f"{_SESSION}/agent",
            "agent",
            Right.DRIVE,
            Scope.SESSION,
            body=fields({"agent": text(200)}, "agent"),
        ),
        Route(
            "POST", f"{_SESSION}/model", "model", Right.DRIVE, Scope.SESSION, body=fields({"model": _MODEL}, "model")
        ),
        Route(
            "POST",
            f"{_SESSION}/compact",
            "compact",
            Right.DRIVE,
            Scope.SESSION,
            body=fields({"id": identifier, "delivery": _DELIVERY}),
        ),
        Route(
            "POST",
            f"{_SESSION}/revert/stage",
            "undo",
            Right.DRIVE,
            Scope.SESSION,
            body=fields({"messageID": identifier, "files": boolean}, "messageID"),
            answer=filters.undone,
        ),
        Route("DELETE", f"{_SESSION}/revert", "undo", Right.DRIVE, Scope.SESSION),
        Route(
            "POST",
            f"{_SESSION}/fork",
            "fork",
            Right.DRIVE,
            Scope.SESSION,
            body=fields({"before": identifier}),
            answer=filters.session,
        ),
        Route(
            "PATCH",
            f"{_SESSION}/inbox/{{item}}",
            "inbox",
            Right.DRIVE,
            Scope.SESSION,
            body=fields({"delivery": _DELIVERY}, "delivery"),
        ),
        Route("DELETE", f"{_SESSION}/inbox/{{item}}", "inbox", Right.DRIVE, Scope.SESSION),
        Route("POST", f"{_SESSION}/permission/{{ask}}/reply", "reply", _reply_right, Scope.SESSION, body=_REPLY),
        Route("POST", f"{_SESSION}/form/{{ask}}/reply", "reply", Right.APPROVE, Scope.SESSION, body=_ANSWER),
        Route("DELETE", f"{_SESSION}/form/{{ask}}", "reply", Right.APPROVE, Scope.SESSION),
    ),
)
