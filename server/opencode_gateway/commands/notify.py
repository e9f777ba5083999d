"""`opencode-gateway notify`."""

from __future__ import annotations

import json
import os
import re
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click
from pydantic import ValidationError

from opencode_common.command_line import Group
from opencode_common.validation import describe
from opencode_gateway.calls.servers import load_servers
from opencode_gateway.commands.opened import json_option, moment, read_line, settings_of, show, show_json
from opencode_gateway.errors import CommandRefused, GatewayError
from opencode_gateway.telling import made_outlet, opened_ledger, state_directory, tried
from opencode_notify.outlets.webhook import new_secret
from opencode_notify.problems import NotifyError
from opencode_notify.rules import FILE_NAME, NoticeRules, OutletSettings, ToldPerson, changing_people, load_people

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@click.group(cls=Group)
def notify() -> None:
    """Say how people are told what needs them: which outlets, and whether these work."""


@notify.command()
@click.argument("person")
@click.argument("outlet")
@click.option("--kind", required=True, help="As ntfy or webhook.")
@click.pass_obj
def add(config: Path, *, person: str, outlet: str, kind: str) -> None:
    """Add an outlet behind those that a person has, or give one of that name another address.

    Its settings are asked for or read from standard input, as one line of JSON: {"url": "https://…"}.
    They may be secrets, and are never an argument.
    Without a `topic` of ntfy or a `secret` of a webhook one is made, and shown this once.
    """
    given, made = _completed(_json(read_line(f"Settings of {outlet}, as JSON")), kind)
    settings = _settings(given, outlet, kind)
    made_outlet(settings.of_kind())
    with _refusals(), changing_people(_file(config)) as people:
        before = people.get(person, ToldPerson())
        kept = [settings if each.name == outlet else each for each in before.outlets]
        outlets = kept if before.outlet(outlet) else [*kept, settings]
        document = {"outlets": [each.settings() for each in outlets], "rules": before.rules}
        try:
            people[person] = ToldPerson.model_validate(document)
        except ValidationError as error:
            raise CommandRefused(f"it was not added: {describe(error)}") from None
    _forget(config, person, outlet)
    if made:
        click.echo(made)
    click.echo(f"{person} is told by {outlet}; `sudo opencode-gateway notify test {person} {outlet}` tries it.")


@notify.command("list")
@json_option
@click.pass_obj
def list_(config: Path, *, as_json: bool) -> None:
    """List the outlets of all people in the order in which they are tried, without addresses."""
    with _refusals():
        people = load_people(_file(config))
    rows = [
        {"person": name, "outlet": outlet.name, "kind": outlet.kind}
        for name, person in sorted(people.items())
        for outlet in person.outlets
    ]
    if as_json:
        show_json(rows)
        return
    show([{key.upper(): text for key, text in row.items()} for row in rows], "Nobody is told anything yet.")


@notify.command()
@click.argument("person")
@click.argument("outlet")
@click.pass_obj
def remove(config: Path, *, person: str, outlet: str) -> None:
    """Remove an outlet of a person; their rules stay."""
    with _refusals(), changing_people(_file(config)) as people:
        found = _known(people, person, outlet)
        people[person] = ToldPerson(outlets=tuple(e for e in found.outlets if e.name != outlet), rules=found.rules)
    _forget(config, person, outlet)
    click.echo(f"{person} is not told by {outlet} any more.")


@notify.command()
@click.argument("person")
@click.argument("changes", metavar="[RULE=VALUE]...", nargs=-1)
@json_option
@click.pass_obj
def rules(config: Path, *, person: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Show the rules of a person, or change some; they count from the next second on.

    As: events=permission,answer machines='laptop-*' quiet='22:00-07:00 Europe/Berlin' grouping_seconds=0
    escalate_after_minutes=none show_command=true. `RULE=` sets one back to what it is for everybody.
    """
    with _refusals(), changing_people(_file(config)) as people:
        before = people.get(person)
        if before is None:
            raise CommandRefused(f"{person} has no outlet yet: `sudo opencode-gateway notify add {person}` adds one")
        changed = before.rules.model_dump(mode="json", by_alias=True)
        for change in changes:
            name, value = _rule(change)
            changed.pop(name)
            if value is not RESET:
                changed[name] = value
        try:
            after = NoticeRules.model_validate_json(json.dumps(changed))
        except ValidationError as error:
            raise CommandRefused(f"nothing was changed: {describe(error)}") from None
        people[person] = ToldPerson(outlets=before.outlets, rules=after)
    found = after.model_dump(mode="json", by_alias=True)
    if as_json:
        click.echo(json.dumps(found))
        return
    show([{"RULE": name, "VALUE": _written(value)} for name, value in found.items()], "")


RESET: Final = object()
"""In place of a value: the rule is to be as it is for everybody."""
_QUIET: Final = re.compile(r"(?P<from>\d\d:\d\d)-(?P<until>\d\d:\d\d) (?P<zone>\S+)")


def _rule(change: str) -> tuple[str, object]:
    """Return the name and value of a rule as somebody wrote it."""
    name, is_one, text = change.partition("=")
    if not is_one or name not in NoticeRules.model_fields:
        raise CommandRefused(f"{name} is no rule: write RULE=VALUE, of {', '.join(NoticeRules.model_fields)}")
    if not text:
        return name, RESET
    if text == "none":
        return name, None
    if name in {"events", "machines"}:
        return name, text.split(",")
    if name != "quiet":
        return name, text
    if found := _QUIET.fullmatch(text):
        return name, found.groupdict()
    raise CommandRefused("quiet: write it as '22:00-07:00 Europe/Berlin', or none")


def _written(value: object) -> str:
    """Return the value of a rule as `_rule` reads it."""
    if isinstance(value, dict):
        return f"{value['from'][:5]}-{value['until'][:5]} {value['zone']}"
    if isinstance(value, list):
        return ",".join(value)
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else f"{value:g}"


@notify.command()
@click.argument("person")
@click.argument("outlet")
@click.pass_obj
def test(config: Path, *, person: str, outlet: str) -> None:
    """Send a message by an outlet now, whatever the hour, and say whether it was accepted."""
    with _refusals():
        settings = _known(load_people(_file(config)), person, outlet).outlet(outlet)
        assert settings is not None  # noqa: S101 # for the types: it is known
        problem = tried(settings.of_kind())
    if problem:
        raise CommandRefused(f"{outlet} did not take it: {problem}")
    _forget(config, person, outlet)
    click.echo(f"{outlet} accepted it; look whether it has arrived.")


@notify.command()
@json_option
@click.pass_obj
def status(config: Path, *, as_json: bool) -> None:
    """Show the last messages and how far each came, and which outlets fail."""
    with _refusals(), opened_ledger(_state_dir(config)) as ledger:
        deliveries = ledger.deliveries(20) if ledger else []
        outlets = ledger.outlets() if ledger else []
    if as_json:
        click.echo(json.dumps({"outlets": [_row(e) for e in outlets], "deliveries": [_row(e) for e in deliveries]}))
        return
    show(
        [
            {
                "PERSON": each.person,
                "OUTLET": each.outlet,
                "STATE": "switched off" if each.disabled_at else "fails" if each.failing_since else "works",
                "SINCE": moment(each.failing_since),
                "ACCEPTED": moment(each.accepted_at),
                "WHY": each.reason or "-",
            }
            for each in outlets
        ],
        "Nothing was sent yet.",
    )
    if not deliveries:
        return
    click.echo("")
    show(
        [
            {
                "MESSAGE": each.message,
                "PERSON": each.person,
                "OUTLET": each.outlet,
                "STATE": each.state,
                "ACCEPTED": moment(each.accepted_at),
                "SHOWN": moment(each.shown_at),
                "OPENED": moment(each.opened_at),
                "DECIDED": moment(each.decided_at),
            }
            for each in deliveries
        ],
        "",
    )


def _row(each: Any) -> dict[str, Any]:
    return {name: getattr(each, name) for name in each.__slots__}


def _json(line: str) -> dict[str, Any]:
    try:
        given = json.loads(line)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise CommandRefused('its settings are no JSON object: write them as {"url": "https://…"}, in one line')
    return given


def _completed(given: dict[str, Any], kind: str) -> tuple[dict[str, Any], str]:
    """Return settings with the secret that a kind needs and nobody can guess, and what to do with it if it is new."""
    if kind == "ntfy" and "topic" not in given:
        topic = f"relay-{secrets.token_hex(12)}"
        return {
            **given,
            "topic": topic,
        }, f"Subscribe in the app to this topic, which is as good as a password: {topic}"
    if kind == "webhook" and "secret" not in given:
        secret = new_secret()
        return {**given, "secret": secret}, f"Give the receiver this key, which nothing shows again: {secret}"
    return given, ""


def _settings(given: dict[str, Any], outlet: str, kind: str) -> OutletSettings:
    try:
        return OutletSettings.model_validate({**given, "name": outlet, "kind": kind})
    except ValidationError as error:
        raise CommandRefused(f"it was not added: {describe(error)}") from None


def _known(people: dict[str, ToldPerson], person: str, outlet: str) -> ToldPerson:
    found = people.get(person)
    if found is None or found.outlet(outlet) is None:
        raise CommandRefused(f"{person} has no outlet {outlet}: `sudo opencode-gateway notify list` shows all")
    return found


def _file(config: Path) -> Path:
    return settings_of(config).data_dir / FILE_NAME


def _state_dir(config: Path) -> Path | None:
    return state_directory(load_servers(settings_of(config).servers_file), os.environ)


def _forget(config: Path, person: str, outlet: str) -> None:
    """Let it be tried anew, whatever it did before."""
    with opened_ledger(_state_dir(config)) as ledger:
        if ledger is not None:
            ledger.forget_outlet(person, outlet)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except NotifyError as error:
        raise GatewayError(str(error)) from error
