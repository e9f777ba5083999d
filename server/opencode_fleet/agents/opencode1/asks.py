"""What OpenCode 1 asks a person, validated, and what it is in the fleet's words."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BeforeValidator, Field

from opencode_fleet import model as fleet
from opencode_fleet.agents.shapes import Id, Mapping, Strings, Text, Wire


class _ToolReference(Wire):
    message_id: Text = Field("", alias="messageID")


class _Asking(Wire):
    id: Id
    session_id: Id = Field(alias="sessionID")
    tool: Annotated[_ToolReference | None, BeforeValidator(lambda v: v if isinstance(v, dict) else None)] = None

    def _message_id(self) -> str:
        found = self.tool.message_id if self.tool else ""
        return found if fleet.is_id(found) else ""


class Permission(_Asking):
    """The agent asks whether it may."""

    permission: Text = ""
    patterns: Strings = Field(default_factory=list)
    metadata: Mapping = Field(default_factory=dict)
    always: Strings = Field(default_factory=list)

    def domain(self) -> fleet.Permission:
        """Return it in the fleet's words."""
        details = []
        for key, value in self.metadata.items():
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            if shown and shown not in self.patterns:
                details.append((key, shown))
        return fleet.Permission(
            id=self.id,
            session_id=self.session_id,
            action=self.permission,
            patterns=tuple(self.patterns),
            details=tuple(details),
            always=tuple(self.always),
            always_means="until that OpenCode ends",
            message_id=self._message_id(),
        )


class _Option(Wire):
    label: Text = ""
    description: Text = ""


class _QuestionItem(Wire):
    question: Text = ""
    options: list[_Option] = Field(default_factory=list)
    multiple: bool = False


class Question(_Asking):
    """The agent asks the person."""

    questions: list[_QuestionItem] = Field(default_factory=list)

    def domain(self) -> fleet.Question:
        """Return it in the fleet's words."""
        items = (
            fleet.QuestionItem(
                question=item.question,
                options=tuple(fleet.Option(each.label, each.description, each.label) for each in item.options),
                multiple=item.multiple,
            )
            for item in self.questions
        )
        return fleet.Question(
            id=self.id, session_id=self.session_id, items=tuple(items), message_id=self._message_id()
        )
