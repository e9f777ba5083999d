"""What OpenCode 2 asks a person, in the fleet's words, and a person's answers in OpenCode 2's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from opencode_common.text import one_line
from opencode_fleet import model as fleet
from opencode_fleet.agents.shapes import Id, Mapping, Short, Strings, Text, Wire
from opencode_fleet.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FIELDS = 100
_SHARED_PROJECT = "global"
_FOR_EVER = "for ever, in every clone and worktree of this project"
_YES_NO = (("yes", "true"), ("no", "false"))
_TRUE = {"true", "yes", "y", "1", "on"}
_FALSE = {"false", "no", "n", "0", "off"}

Details = tuple[tuple[str, str], ...]
"""Pairs of label and text."""


def _dicts(value: object) -> object:
    return [item for item in value if isinstance(item, dict)][:MAX_FIELDS] if isinstance(value, list) else []


def _dict_or_none(value: object) -> object:
    return value if isinstance(value, dict | Wire) else None


def details_of(arguments: dict[str, Any]) -> Details:
    """Return a tool's input, the whole of it."""
    return tuple(
        (key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for key, value in arguments.items()
    )


class _Source(Wire):
    message_id: Id = Field(alias="messageID")
    id: Text = Field("", max_length=200)


class _Change(Wire):
    file: Text = ""
    patch: Text = ""


class Permission(Wire):
    """The agent asks whether it may."""

    id: Id
    session_id: Id = Field(alias="sessionID")
    action: Text = ""
    resources: Strings = Field(default_factory=list)
    save: Strings = Field(default_factory=list)
    metadata: Mapping = Field(default_factory=dict)
    message: Text = ""
    source: Annotated[_Source | None, BeforeValidator(_dict_or_none)] = None

    def changes(self) -> Details:
        """Return what an edit would change, as diffs; nothing where that is not told."""
        files = self.metadata.get("files")
        found = (
            [_Change.model_validate(each) for each in files if isinstance(each, dict)]
            if isinstance(files, list)
            else []
        )
        if not found or not all(change.patch for change in found):
            return ()
        return tuple((f"diff of {change.file}", change.patch) for change in found)

    def domain(self, arguments: Details | None, project: str) -> fleet.Permission:
        """Return it in the fleet's words.

        Its resources are a command split at `&&` and the like, without what they are joined by: not what would run.

        Args:
            arguments: the input of the tool that asks; None where it is not to be had.
            project: the project of its session.
        """
        changes = self.changes()
        is_edit = self.action == "edit"
        message = (("message", self.message),) if self.message else ()
        return fleet.Permission(
            id=self.id,
            session_id=self.session_id,
            action=self.action,
            patterns=tuple(self.resources),
            is_split=self.action == "shell" and bool(arguments),
            details=(changes or arguments or ()) + message,
            always=tuple(dict.fromkeys("every edit" if each == "*" and is_edit else each for each in self.save)),
            always_means=_FOR_EVER,
            always_refused=_refused(project),
            message_id=self.source.message_id if self.source else "",
            is_whole=self.source is None or arguments is not None or bool(changes),
        )


def _refused(project: str) -> str:
    if project == _SHARED_PROJECT:
        return (
            "all repositories without a commit share one project in OpenCode 2, so it would count in every one of "
            "them; make a first commit there, or answer `once`"
        )
    return "" if project else "its OpenCode does not tell of which project it would be for ever"


class _Option(Wire):
    value: Text = ""
    label: Text = ""
    description: Text = ""


class _Condition(Wire):
    key: Short = ""
    op: Text = ""
    value: Any = None


class _Field(Wire):
    key: Text = Field(max_length=200)
    type: Text = ""
    title: Text = ""
    description: Text = ""
    is_hidden: bool = Field(False, alias="hidden")
    options: Annotated[list[_Option], BeforeValidator(_dicts)] = Field(default_factory=list)
    when: Annotated[list[_Condition], BeforeValidator(_dicts)] = Field(default_factory=list)
    url: Text = ""

    def item(self) -> fleet.QuestionItem:
        text = self.description or self.title or self.key
        if self.type == "external":
            text = f"{text} (opened on the machine itself: {self.url})"
        elif self.type in {"number", "integer"}:
            text = f"{text} (a{' whole' if self.type == 'integer' else ''} number)"
        options = [fleet.Option(each.label or each.value, each.description, each.value) for each in self.options]
        if self.type == "boolean":
            options = [fleet.Option(label, "", value) for label, value in _YES_NO]
        return fleet.QuestionItem(
            question=text, options=tuple(options), multiple=self.type == "multiselect", key=self.key
        )

    def value(self, given: Sequence[str]) -> object:
        """Return a person's answer as the field takes it. Raises `Refused`."""
        if self.type == "multiselect":
            return list(given)
        text = given[0].strip()
        if len(given) > 1:
            raise self._unfit("one answer", ", ".join(given))
        if self.type == "boolean":
            if text.lower() not in _TRUE | _FALSE:
                raise self._unfit("yes or no", text)
            return text.lower() in _TRUE
        try:
            if self.type == "integer":
                return int(text[:40])
            if self.type == "number":
                return float(text[:40])
        except ValueError:
            raise self._unfit("a number", text) from None
        return given[0]

    def _unfit(self, wanted: str, given: str) -> Refused:
        return Refused(f"{one_line(given, 80)!r} is not {wanted}, which was asked for; nothing was answered")


class Form(Wire):
    """The agent asks for answers."""

    id: Id
    session_id: Id = Field(alias="sessionID")
    title: Short = ""
    metadata: Mapping = Field(default_factory=dict)
    fields: Annotated[list[_Field], BeforeValidator(_dicts)] = Field(default_factory=list)

    def domain(self) -> fleet.Question:
        """Return it in the fleet's words."""
        tool = self.metadata.get("tool")
        message_id = str(tool.get("messageID", "")) if isinstance(tool, dict) else ""
        return fleet.Question(
            id=self.id,
            session_id=self.session_id,
            items=tuple(field.item() for field in self.fields if not field.is_hidden),
            message_id=message_id if fleet.is_id(message_id) else "",
        )

    def answer(self, answers: Sequence[Sequence[str]]) -> dict[str, object]:
        """Return a person's answers, one for each item, by the keys of the fields.

        Raises:
            Refused: they do not fit, or nothing is left of them: an empty answer would count as one.
        """
        shown = [field for field in self.fields if not field.is_hidden]
        if len(answers) != len(shown):
            raise Refused(f"it wants {len(shown)} answer(s), in the order asked; nothing was answered")
        pairs = [
            (field, given) for field, given in zip(shown, answers, strict=True) if given and field.type != "external"
        ]
        values = {field.key: field.value(given) for field, given in pairs}
        kept = {field.key: values[field.key] for field, _ in pairs if _is_wanted(field, values)}
        if not kept:
            raise Refused(f"{self.id} cannot be answered from here; settle it on the machine itself, or decline it")
        return kept


def _is_wanted(field: _Field, values: dict[str, object]) -> bool:
    """Whether the answers to other fields leave this one to be answered."""
    return all(
        (values.get(condition.key) == condition.value) == (condition.op == "eq")
        for condition in field.when
        if condition.op in {"eq", "neq"}
    )
