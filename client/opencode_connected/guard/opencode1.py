"""What is let through to OpenCode 1: its whole API is a shell, so only what this product uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_connected.guard import filters
from opencode_connected.guard.bodies import (
    MAX_FILES,
    MEDIA_TYPES,
    array,
    by_type,
    data_url,
    fields,
    identifier,
    moment,
    number,
    one_of,
    text,
)
from opencode_connected.guard.policy import Right
from opencode_connected.guard.routes import MAX_PROMPT, Api, Route, Scope, member
from opencode_connected.guard.thinned1 import MESSAGES, Thinner1
from opencode_connected.guard.thinning import patches

if TYPE_CHECKING:
    from collections.abc import Mapping

_MODEL = fields({"providerID": text(200), "modelID": text(200)}, "providerID", "modelID")
_REVERT = fields({"messageID": identifier}, "messageID")
_TEXT = {"id": identifier, "type": text(4), "text": text(MAX_PROMPT)}
_FILE = {"id": identifier, "type": text(4), "mime": one_of(*MEDIA_TYPES), "filename": text(400), "url": data_url}
_PART = by_type({"text": fields(_TEXT, "text"), "file": fields(_FILE, "mime", "url")})
_PROMPT = fields(
    {
        "messageID": identifier,
        "agent": text(200),
        "model": _MODEL,
        "variant": text(200),
        "parts": array(_PART, 1 + MAX_FILES),
    },
    "parts",
)
_COMMAND = fields(
    {
        "messageID": identifier,
        "command": text(200),
        "arguments": text(MAX_PROMPT),
        "agent": text(200),
        "model": text(400),
        "variant": text(200),
    },
    "command",
    "arguments",
)
_REPLY = fields({"reply": one_of("once", "always", "reject"), "message": text(100_000)}, "reply")
_ANSWERS = fields({"answers": array(array(text(100_000), 100), 100)}, "answers")
_TOAST = fields(
    {
        "title": text(200),
        "message": text(2000),
        "variant": one_of("info", "success", "warning", "error"),
        "duration": number,
    },
    "message",
    "variant",
)
_NOTHING = fields({})
_DIFF = {"mode": one_of("git", "branch"), "context": text(6)}
_LIST = {"roots": one_of("true", "false"), "limit": text(6), "search": text(400), "start": text(20)}


def _reply_right(body: Mapping[str, object]) -> Right:
    return Right.ALWAYS if body.get("reply") == "always" else Right.APPROVE


def _session_directory(answer: object) -> str | None:
    directory = member(answer, "directory")
    return directory if isinstance(directory, str) else None


API = Api(
    generation=1,
    directory_key="directory",
    decodes_twice=True,
    own_directory="/path",
    session="/session/{session}",
    commands="/command",
    session_directory=_session_directory,
    health="/global/health",
    filters_events=False,
    thinner=Thinner1,
    routes=(
        Route("GET", "/path", "status", answer=filters.own_directory),
        Route("GET", "/session/status", "status", scope=Scope.QUERY),
        Route("GET", "/vcs", "vcs", scope=Scope.QUERY),
        Route("GET", "/vcs/status", "vcs", scope=Scope.QUERY),
        Route("GET", "/vcs/diff", "diff", scope=Scope.QUERY, query=_DIFF, shape=patches),
        Route("GET", "/agent", "agent", scope=Scope.QUERY, answer=filters.agents),
        Route("GET", "/command", "commands", scope=Scope.QUERY, answer=filters.commands),
        Route("GET", "/config/providers", "model", scope=Scope.QUERY, answer=filters.providers),
        Route("GET", "/event", "events", scope=Scope.QUERY, is_stream=True),
        Route("GET", "/permission", "asks", scope=Scope.QUERY),
        Route("GET", "/question", "asks", scope=Scope.QUERY),
        Route(
            "GET",
            "/session",
            "sessions",
            scope=Scope.FILTER,
            query=_LIST,
            answer=filters.sessions("directory"),
            is_emptied=True,
        ),
        Route("GET", "/session/{session}", "session", scope=Scope.SESSION, answer=filters.session, is_emptied=True),
        Route(
            "GET",
            "/session/{session}/message",
            "messages",
            scope=Scope.SESSION,
            query={"limit": text(6), "before": text(1000)},
            shape=MESSAGES,
            header="x-next-cursor",
        ),
        Route("GET", "/session/{session}/message/{message}", "messages", scope=Scope.SESSION),
        Route(
            "GET",
            "/session/{session}/diff",
            "diff",
            scope=Scope.SESSION,
            query={"messageID": identifier},
            shape=patches,
        ),
        Route("GET", "/session/{session}/todo", "todo", scope=Scope.SESSION),
        Route("POST", "/session", "create", Right.DRIVE, Scope.QUERY, body=fields({"title": text(400)})),
        Route(
            "PATCH",
            "/session/{session}",
            "rename",
            Right.DRIVE,
            Scope.SESSION,
            body=fields({"title": text(400), "time": fields({"archived": moment}, "archived")}),
            answer=filters.session,
            is_emptied=True,
        ),
        Route("POST", "/session/{session}/summarize", "compact", Right.DRIVE, Scope.SESSION, body=_MODEL),
        Route(
            "POST",
            "/session/{session}/fork",
            "fork",
            Right.DRIVE,
            Scope.SESSION,
            body=_NOTHING,
            answer=filters.session,
            is_emptied=True,
        ),
        Route(
            "POST",
            "/session/{session}/revert",
            "undo",
            Right.DRIVE,
            Scope.SESSION,
            body=_REVERT,
            answer=filters.session,
            is_emptied=True,
        ),
        Route(
            "POST",
            "/session/{session}/unrevert",
            "undo",
            Right.DRIVE,
            Scope.SESSION,
            body=_NOTHING,
            answer=filters.session,
            is_emptied=True,
        ),
        Route(
            "POST",
            "/session/{session}/prompt_async",
            "prompt",
            Right.DRIVE,
            Scope.SESSION,
            body=_PROMPT,
            max_body=MAX_PROMPT,
        ),
        Route(
            "POST",
            "/session/{session}/command",
            "command",
            Right.DRIVE,
            Scope.SESSION,
            command=("command", "arguments"),
            body=_COMMAND,
        ),
        Route("POST", "/session/{session}/abort", "abort", Right.DRIVE, Scope.SESSION, body=_NOTHING),
        Route("POST", "/permission/{ask}/reply", "reply", _reply_right, Scope.QUERY, body=_REPLY),
        Route("POST", "/question/{ask}/reply", "reply", Right.APPROVE, Scope.QUERY, body=_ANSWERS),
        Route("POST", "/question/{ask}/reject", "reply", Right.APPROVE, Scope.QUERY, body=_NOTHING),
        Route(
            "POST",
            "/tui/select-session",
            "screen",
            Right.DRIVE,
            Scope.BODY_SESSION,
            body=fields({"sessionID": identifier}, "sessionID"),
        ),
        Route("POST", "/tui/show-toast", "screen", Right.DRIVE, Scope.QUERY, body=_TOAST),
    ),
)
