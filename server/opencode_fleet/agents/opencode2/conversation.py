"""A session's entries, oldest first, as messages and turns: which answers which is told by their order alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_fleet.agents.shapes import MILLISECONDS
from opencode_fleet.model import Message, Part, TurnRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_fleet.agents.opencode2 import wire


def text_part_id(message_id: str, ordinal: int) -> str:
    """Return the id of a message's n-th text: OpenCode 2 gives its parts none."""
    return f"{message_id}:{ordinal}"


def messages_of(entries: Sequence[wire.Message], session_id: str) -> list[Message]:
    """Return the entries that say something, each answer with the prompt before it."""
    found = []
    prompt_id = ""
    for entry in entries:
        if entry.type == "user":
            prompt_id = entry.id
        message = _message(entry, session_id, prompt_id)
        if message is not None:
            found.append(message)
    return found


def _message(entry: wire.Message, session_id: str, prompt_id: str) -> Message | None:
    created = entry.time.created / MILLISECONDS
    if entry.type == "assistant":
        return Message(
            id=entry.id,
            session_id=session_id,
            role="assistant",
            parts=tuple(_parts(entry)),
            created=created,
            completed=entry.time.completed / MILLISECONDS if entry.time.completed is not None else None,
            ended=entry.ended,
            answers=prompt_id,
            # While the model is asked again, what failed is no end.
            error=entry.error.describe() if entry.error and entry.retry is None else "",
            is_stopped=entry.error is not None and entry.error.is_interruption,
            retry=entry.retry.describe() if entry.retry else "",
            agent=entry.agent,
            model=entry.model.name(),
        )
    is_user = entry.type == "user"
    text = entry.text if is_user else _note(entry)
    parts = [Part(id=text_part_id(entry.id, 0), kind="text", text=text)] if text else []
    parts += [
        Part(id=f"{entry.id}:file:{number}", kind="file", text=file.name) for number, file in enumerate(entry.files)
    ]
    if not parts:
        return None
    return Message(
        id=entry.id,
        session_id=session_id,
        role="user" if is_user else "note",
        parts=tuple(parts),
        created=created,
        completed=created,
        error=entry.error.describe() if entry.error else "",
        is_summary=entry.type == "compaction",
    )


def _note(entry: wire.Message) -> str:
    """Return what OpenCode itself put in, in words; nothing where a person has no use for it."""
    match entry.type:
        case "synthetic":
            text = entry.description or entry.text
        case "shell":
            text = f"a command was run by hand: {entry.command}"
        case "compaction":
            text = entry.summary or ("the conversation could not be summarised" if entry.error else "")
        case "agent-switched":
            text = f"the agent is {entry.agent} from here on"
        case "model-switched":
            text = f"the model is {entry.model.name() or 'another one'} from here on"
        case "skill":
            text = f"the skill {entry.name} was loaded"
        case _:
            text = ""
    return text


def _parts(entry: wire.Message) -> list[Part]:
    found = []
    # Counted by kind, as the events do.
    texts = reasonings = 0
    for piece in entry.content:
        if piece.type == "text":
            part_id = text_part_id(entry.id, texts)
            found.append(Part(id=part_id, kind="text", text=piece.text, changed=piece.time.last))
            texts += 1
        elif piece.type == "reasoning":
            part_id = f"{entry.id}:reasoning:{reasonings}"
            found.append(Part(id=part_id, kind="reasoning", text=piece.text, changed=piece.time.last))
            reasonings += 1
        elif piece.type == "tool":
            part_id = f"{entry.id}:{piece.id[:200]}"
            found.append(Part(id=part_id, kind="tool", call=piece.call(), changed=piece.time.last))
    return found


def turn_of(entries: Sequence[wire.Message], session_id: str, prompt_id: str) -> TurnRecord | None:
    """Return what the entries say of the turn that a prompt started; None where it is not among them.

    Notes between its answers, as after a restart, do not end it. A prompt that comes while a turn runs joins it at
    the next step: then the answers to both are one.
    """
    start = next((at for at, entry in enumerate(entries) if entry.type == "user" and entry.id == prompt_id), None)
    if start is None:
        return None
    end = _next_prompt(entries, start)
    is_shared = False
    while end < len(entries) and not _is_over(entries[start:end]):
        is_shared = True
        end = _next_prompt(entries, end)
    turn = entries[start:end]
    answers = [message for message in messages_of(turn, session_id) if message.role == "assistant"]
    last = next((entry for entry in reversed(turn) if entry.type in {"assistant", "idle"}), None)
    return TurnRecord(
        is_stored=True,
        answers=tuple(answers),
        is_interrupted=_is_interrupted(last),
        problem=_problem(last, answers),
        is_shared=is_shared,
    )


def queued_turn(item: wire.InboxItem, newest: wire.Message | None) -> TurnRecord:
    """Return what is known of a prompt that was accepted and has not begun.

    Args:
        item: what lies in the inbox.
        newest: the session's newest entry.
    """
    # An end after it came: it was not begun with because something is wrong, or because a person stopped the session.
    is_end = newest is not None and newest.type == "idle" and newest.time.created >= item.time.created
    outcome = newest.outcome if newest is not None and is_end else ""
    return TurnRecord(
        is_stored=False,
        is_queued=True,
        is_interrupted=outcome == "interrupted",
        problem="OpenCode could not begin with it: check the session's agent and model"
        if outcome == "failed"
        else "",
    )


def _next_prompt(entries: Sequence[wire.Message], start: int) -> int:
    return next((at for at in range(start + 1, len(entries)) if entries[at].type == "user"), len(entries))


def _is_over(turn: Sequence[wire.Message]) -> bool:
    """Whether a turn ended before the next prompt came."""
    last = next((entry for entry in reversed(turn) if entry.type in {"assistant", "idle"}), None)
    return last is not None and (last.type == "idle" or last.ended in {"well", "failed", "broken"})


def _is_interrupted(last: wire.Message | None) -> bool:
    if last is None:
        return False
    if last.type == "idle":
        return last.outcome == "interrupted"
    # After a rejection nothing says so but the answer itself.
    return last.ended == "failed" and last.error is not None and last.error.is_interruption


def _problem(last: wire.Message | None, answers: Sequence[Message]) -> str:
    if last is None or last.type != "idle" or last.outcome != "failed" or (answers and answers[-1].error):
        return ""
    return answers[-1].retry if answers and answers[-1].retry else "OpenCode gave no reason"
