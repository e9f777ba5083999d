"""What an agent changed, as text: by file, then as many lines of the diffs as fit, and what it has to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_common.text import clean, cut_tail, fence, one_line, quote, quote_name
from opencode_fleet.errors import Refused
from opencode_mcp.views.rows import OWN_WORDS, Result, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opencode_fleet.changes import FileChange, Todo, WorkingTree

MAX_FILES = 200
MAX_TODOS = 50
_MAX_CANDIDATES = 10
_PATH_LENGTH = 200
_TODO_LENGTH = 200
_NO_LIST = "Its agent keeps no to-do list; `read` shows what it is at."
_NOT_TOLD = "(its lines were not told: they are too many, or the machine does not show them)"


class FileRow(Row):
    """A file that is not as it was."""

    file: str
    status: str = ""
    additions: int = 0
    deletions: int = 0


class TodoRow(Row):
    """An entry of the agent's list of what it has to do."""

    text: str
    status: str = ""


class ChangesResult(Result):
    """What was changed. `session`: whose list it is, and whose changes if they were asked for by it."""

    instance: str
    session: str = ""
    branch: str = ""
    default_branch: str = ""
    files: list[FileRow]
    left_out: int = 0
    diff: str = ""
    todos: list[TodoRow] = []
    more_todos: int = 0
    problem: str = ""


def chosen(files: Sequence[FileChange], wanted: str) -> Sequence[FileChange]:
    """Return the one file that `wanted` means: its path, or the path's end; all without one.

    Raises:
        Refused: none of them is meant, or several are.
    """
    if not wanted:
        return files
    exact = [each for each in files if each.file == wanted]
    found = exact or [each for each in files if each.file.endswith(f"/{wanted}")]
    if len(found) == 1:
        return found
    candidates = found or list(files)
    listed = ", ".join(each.file for each in candidates[:_MAX_CANDIDATES])
    fits = "fits several of them" if found else "is none of them"
    raise Refused(
        f"{one_line(wanted, _PATH_LENGTH)!r} {fits}; changed are: "
        f"{quote(listed, _MAX_CANDIDATES * _PATH_LENGTH) if listed else 'no files'}"
    )


def changes_result(
    instance: str,
    session_id: str,
    tree: WorkingTree,
    todos: Sequence[Todo],
    *,
    problem: str,
    max_chars: int,
) -> ChangesResult:
    """Return what was changed, for programs: at most about `max_chars` characters of it."""
    rows: list[FileRow] = []
    left = max_chars - OWN_WORDS
    for each in tree.files[:MAX_FILES]:
        row = _file_row(each)
        left -= len(_file_line(row)) + 1
        # Half is kept for what was changed in them.
        if rows and left < max_chars // 2:
            break
        rows.append(row)
    shown: list[TodoRow] = []
    for todo in todos[:MAX_TODOS]:
        entry = TodoRow(text=one_line(todo.text, _TODO_LENGTH), status=one_line(todo.status, 20))
        left -= len(_todo_line(entry)) + 1
        if shown and left < max_chars // 4:
            break
        shown.append(entry)
    return ChangesResult(
        instance=instance,
        session=session_id,
        branch=one_line(tree.branch, 120),
        default_branch=one_line(tree.default_branch, 120),
        files=rows,
        left_out=len(tree.files) - len(rows),
        diff=_diff(tree.files, left),
        todos=shown,
        more_todos=len(todos) - len(shown),
        problem=problem,
    )


def changes_text(result: ChangesResult, what: str, *, lacks_list: bool = False) -> str:
    """Return what was changed, for people.

    `what`: of what it is, in our words. `lacks_list`: whether the agent there has no to-do list at all.
    """
    total = len(result.files) + result.left_out
    lines = []
    if result.branch:
        default = f" (the default is {result.default_branch})" if result.default_branch else ""
        lines.append(f"branch {result.branch}{default}")
    lines += [_file_line(row) for row in result.files]
    if result.todos:
        lines += ["", "to do:", *(_todo_line(row) for row in result.todos)]
    if result.more_todos:
        lines.append(f"… {result.more_todos} more to do")
    if result.diff:
        lines += ["", result.diff]
    text = f"instance {quote_name(result.instance)}, {what}: {total or 'no'} changed file{'' if total == 1 else 's'}."
    if lines:
        text += f"\n{fence(chr(10).join(lines))}"
    if result.left_out:
        text += f"\n{result.left_out} more files are left out: name one as `file`, or ask for a larger max_chars."
    if lacks_list:
        text += f"\n{_NO_LIST}"
    return f"{text}\nNot all could be had: {fence(result.problem)}" if result.problem else text


def _file_row(change: FileChange) -> FileRow:
    return FileRow(
        file=one_line(change.file, _PATH_LENGTH),
        status=one_line(change.status, 20),
        additions=change.additions,
        deletions=change.deletions,
    )


def _file_line(row: FileRow) -> str:
    return f"{row.file}: {row.status or 'changed'} +{row.additions} -{row.deletions}"


def _todo_line(row: TodoRow) -> str:
    return f"[{row.status or 'open'}] {row.text}"


def _diff(files: Sequence[FileChange], limit: int) -> str:
    """Return the files' diffs one after the other, as far as they fit; the last one is cut with a mark."""
    blocks: list[str] = []
    for each in files:
        hunks = _hunks(each.patch)
        if not hunks and not (each.additions or each.deletions):
            continue
        head = f"--- {one_line(each.file, _PATH_LENGTH)}\n"
        if limit <= len(head):
            blocks.append("[… the diffs of more files are left out; name one as `file`]")
            break
        body = cut_tail(hunks or _NOT_TOLD, limit - len(head), "ask with `file` and a larger max_chars")
        blocks.append(head + body)
        limit -= len(head) + len(body) + 1
    return "\n".join(blocks)


def _hunks(patch: str) -> str:
    """Return a patch from its first hunk on: what is before it only repeats the file's name."""
    start = 0 if patch.startswith("@@") else patch.find("\n@@") + 1
    return clean(patch[start:].rstrip("\n")) if start or patch.startswith("@@") else ""
