"""What is kept of an agent's answers: nothing of other directories, and nothing that opens a door."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_connected.guard.refusals import NOT_OPENED, RequestRefused
from opencode_connected.guard.routes import member, only

if TYPE_CHECKING:
    from collections.abc import Callable

    from opencode_connected.guard.routes import Filter, Reach

_AGENT = ("id", "name", "description", "mode", "hidden", "color", "native")
_AGENT_MODEL = ("id", "modelID", "providerID", "variant")
_COMMAND = ("name", "description", "agent", "source", "subtask", "hints")
_MODEL = ("id", "providerID", "name", "enabled")
_PROVIDER = ("id", "name")
_INFO = ("version", "pid")
_REVERT = ("messageID",)


def _entries(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def listed(*where: str) -> Filter:
    """Keep the entries of a list whose directory, at `where` in each, may be seen."""

    async def keep(answer: object, reach: Reach) -> object:
        def kept(entries: object) -> list[object]:
            return [entry for entry in _entries(entries) if reach.allows(member(entry, *where))]

        if isinstance(answer, dict) and "data" in answer:
            return {**only(answer, ("cursor",)), "data": kept(answer["data"])}
        return kept(answer)

    return keep


def sessions(*where: str) -> Filter:
    """Keep the sessions whose directory, at `where` in each, may be seen, as `session` does."""
    seen = listed(*where)

    async def keep(answer: object, reach: Reach) -> object:
        told = await seen(answer, reach)
        if isinstance(told, dict):
            return {**told, "data": [_session(entry) for entry in _entries(told["data"])]}
        return [_session(entry) for entry in _entries(told)]

    return keep


async def session(answer: object, _reach: Reach) -> object:
    """Keep a session, but of what it took back only from which message on: OpenCode tells a diff of all of it."""
    if isinstance(answer, dict) and "data" in answer:
        return {**answer, "data": _session(answer["data"])}
    return _session(answer)


async def undone(answer: object, _reach: Reach) -> object:
    """Keep from which message on OpenCode 2 took back."""
    return {"data": only(member(answer, "data"), _REVERT)}


def _session(entry: object) -> object:
    if not isinstance(entry, dict) or "revert" not in entry:
        return entry
    return {**entry, "revert": only(entry["revert"], _REVERT)}


async def active(answer: object, reach: Reach) -> object:
    """Keep the sessions, by id, that may be seen."""
    data = member(answer, "data")
    entries = data if isinstance(data, dict) else {}
    return {"data": {key: value for key, value in entries.items() if await reach.sees(key)}}


async def info(answer: object, _reach: Reach) -> object:
    """Keep version and process."""
    return only(answer, _INFO)


async def own_directory(answer: object, reach: Reach) -> object:
    """Keep where it works, if that may be seen.

    Raises:
        Refused: it may not.

    """
    if not reach.allows(member(answer, "directory")):
        raise RequestRefused("directory", NOT_OPENED)
    return only(answer, ("directory", "worktree"))


async def agents(answer: object, _reach: Reach) -> object:
    """Keep what a person chooses by: prompts, permissions and headers of requests stay here."""
    return _each(answer, _agent)


async def commands(answer: object, _reach: Reach) -> object:
    """Keep what a person chooses by; templates stay here."""
    return _each(answer, lambda entry: only(entry, _COMMAND))


async def models(answer: object, _reach: Reach) -> object:
    """Keep what a person chooses by: settings, headers and bodies hold keys."""
    return _each(answer, _model)


async def providers(answer: object, _reach: Reach) -> object:
    """Keep the names of who serves models, and of these: all else of them may hold keys."""
    return {"providers": [_provider(entry) for entry in _entries(member(answer, "providers"))]}


def _provider(entry: object) -> object:
    told = member(entry, "models")
    models = told if isinstance(told, dict) else {}
    return {**only(entry, _PROVIDER), "models": {key: only(value, ("name",)) for key, value in models.items()}}


def _agent(entry: object) -> object:
    model = member(entry, "model")
    return only(entry, _AGENT) | ({"model": only(model, _AGENT_MODEL)} if model else {})


def _model(entry: object) -> object:
    variants = [only(variant, ("id",)) for variant in _entries(member(entry, "variants"))]
    return {**only(entry, _MODEL), "variants": variants}


def _each(answer: object, keep: Callable[[object], object]) -> object:
    if isinstance(answer, dict):
        return {
            "location": only(answer.get("location"), ("directory",)),
            "data": [keep(entry) for entry in _entries(answer.get("data"))],
        }
    return [keep(entry) for entry in _entries(answer)]
