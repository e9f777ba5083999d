"""The structured results of the tools: what programs get. All text in them comes out cleaned."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


def _without_titles(schema: dict[str, Any]) -> None:
    """Leave out what repeats the field names: the schemas stand in every chat's context."""
    schema.pop("title", None)
    schema.pop("description", None)
    for field in schema["properties"].values():
        field.pop("title", None)
        field.pop("default", None)


class Row(BaseModel):
    """Base of structured results."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_without_titles)


class InstanceRow(Row):
    """One instance. `since`: epoch seconds when it went offline. `remote`: what may be done from afar, if not all."""

    name: str
    state: str
    directory: str
    hostname: str
    client: str = ""
    version: str = ""
    session: str = ""
    title: str = ""
    agent: str = ""
    waits_for: str = ""
    since: float = 0
    remote: list[str] = []


class InstancesResult(Row):
    """The fleet. `left_out`: how many more there are, by state."""

    instances: list[InstanceRow]
    left_out: dict[str, int] = {}
    problems: list[str] = []


class AskRow(Row):
    """What an agent waits for, in one line; the result's text has all of it."""

    id: str
    kind: str
    """`permission` or `question`."""
    session: str
    summary: str


class TurnResult(Row):
    """How a turn stands."""

    instance: str
    session: str
    result: str
    text: str = ""
    problem: str = ""
    note: str = ""
    asks: list[AskRow] = []


class MessageRow(Row):
    """One message of a conversation."""

    role: str
    text: str


class ReadResult(Row):
    """The end of a conversation."""

    instance: str
    session: str
    title: str
    state: str
    agent: str = ""
    model: str = ""
    problem: str = ""
    messages: list[MessageRow]
    asks: list[AskRow] = []
