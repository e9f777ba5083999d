"""What `opencode-gateway doctor` looks at: a function a check, each of which returns what it found and what to do."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from typing import TYPE_CHECKING, Final

import httpx2

from opencode_common.database import DatabaseError
from opencode_common.finding import Finding, fault, note, ok
from opencode_gateway.calls.names import Names
from opencode_gateway.calls.servers import OPENCODE
from opencode_gateway.configuration import PasswordSignIn, is_named
from opencode_gateway.errors import GatewayError
from opencode_gateway.oauth.enrolment import list_clients, opened_at
from opencode_gateway.oauth.redirects import commanded, switches
from opencode_gateway.refusal_log import list_refusals
from opencode_gateway.store import FILE_NAME
from opencode_notify.failing import failing, in_words
from opencode_notify.problems import NotifyError
from opencode_notify.rules import load_people

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from opencode_gateway.calls.servers import Servers
    from opencode_gateway.configuration import Configuration, ProviderSignIn
    from opencode_gateway.people.users import Users
    from opencode_gateway.store import Store

_FREE_BYTES: Final = 100 * 1024 * 1024
_PROVIDER_SECONDS: Final = 5.0
_DAY: Final = 86400.0
AGAIN: Final = "Then run `sudo opencode-gateway doctor` again"
"""What comes after errors that say themselves what helps."""
_SHOWN: Final = 10
"""Of the refusals of a day."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_DISCOVERY: Final = "/.well-known/openid-configuration"
_ASKED: Final = {"github": "https://github.com/", "google": f"https://accounts.google.com{_DISCOVERY}"}


def servers_found(servers: Servers, configuration: Configuration, environ: Mapping[str, str]) -> list[Finding]:
    """See that the program of each server is there."""
    findings = []
    for name, server in servers.items():
        path = server.environment(name, environ, configuration.tool_timeout_seconds).get("PATH")
        if shutil.which(server.command, path=path) is None:
            where = f"{name}.command of {configuration.servers_file or 'the default'}"
            findings.append(fault("servers", f"{server.command} is not found", f"Install it, or correct {where}"))
    return findings or [ok("servers", f"the program of {', '.join(servers)} is there")]


def tools_are_listed(servers: Servers, configuration: Configuration) -> list[Finding]:
    """See that what capabilities list is there, and the other way round, as far as it is known without asking."""
    names = Names(servers)
    told = names.told_by_nature()
    compared = names.compared(configuration.capabilities, told)
    asking = "`sudo opencode-gateway check --start` asks all servers"
    warnings = compared.warnings()
    if not warnings and told.keys() == servers.keys():
        return [ok("tools", "capabilities list what the servers have")]
    return [note("tools", text) for text in warnings] or [
        note("tools", "not all servers were asked for theirs", asking)
    ]


def described_approvals(configuration: Configuration) -> str:
    """Return where asks are decided, and with what."""
    where = "on the page alone" if configuration.approvals == "page" else "in chats and on the page"
    passkeys = configuration.passkey_for
    return f"{where}; {' and '.join(passkeys)} with a passkey alone" if passkeys else where


def without_pages(configuration: Configuration, servers: Servers) -> str:
    """Return why what is to be decided on the page can be decided nowhere; empty if it can, or is not to be."""
    if configuration.approvals != "page" and not configuration.passkey_for:
        return ""
    server = servers.get(OPENCODE)
    if server is None:
        return f"approvals or passkey_for needs the page, which a server called {OPENCODE} alone has"
    if not server.is_told_callers(OPENCODE):
        return f"approvals or passkey_for needs the page, and {OPENCODE} is not told who calls: see its RELAY_CALLERS"
    if configuration.passkey_for and not is_named(configuration.public_url):
        return "passkey_for needs the page at a name, and public_url has an address of numbers"
    return ""


def approvals_have_a_page(servers: Servers, configuration: Configuration) -> list[Finding]:
    """See that asks can be decided where they are to be."""
    if problem := without_pages(configuration, servers):
        return [fault("approvals", problem, "Correct servers.json, or take the setting out of gateway.json")]
    return [ok("approvals", described_approvals(configuration))]


def files_are_private(data_dir: Path) -> list[Finding]:
    """See that nobody but the service's account can read or change what it keeps."""
    try:
        owner = data_dir.stat().st_uid
        kept = [data_dir, *sorted(data_dir.iterdir())]
    except OSError as error:
        return [
            fault("files", f"{data_dir} cannot be read: {error.strerror}", "Make it, of the service's account alone")
        ]
    findings = []
    for path in kept:
        try:
            found = path.lstat()
        except FileNotFoundError:  # SQLite's log, which comes and goes
            continue
        if not stat.S_ISLNK(found.st_mode) and found.st_mode & _OTHERS:
            right = "700" if stat.S_ISDIR(found.st_mode) else "600"
            findings.append(fault("files", f"others may use {path}", f"Run `sudo chmod {right} {path}`"))
        if found.st_uid != owner:
            findings.append(
                fault("files", f"{path} belongs to uid {found.st_uid}", f"Run `sudo chown {owner}:{owner} {path}`")
            )
    return findings or [ok("files", f"what is in {data_dir} is the service's alone")]


def disk_has_room(data_dir: Path) -> list[Finding]:
    """See that something can be written still."""
    try:
        status = os.statvfs(data_dir)
    except OSError as error:
        return [fault("disk", f"{data_dir} cannot be looked at: {error.strerror}", "See that it is there")]
    free = status.f_bavail * status.f_frsize
    if free < _FREE_BYTES:
        return [
            fault(
                "disk",
                f"{data_dir} has {free // 2**20} MB left",
                "Make room: `sudo docker image prune`, `sudo journalctl --vacuum-size=200M`, `sudo apt-get clean`",
            )
        ]
    return [ok("disk", f"{data_dir} has {free // 2**20} MB left")]


def database_is_sound(store: Store) -> list[Finding]:
    """Have SQLite look at its file."""
    try:
        with store.transaction(write=False) as db:
            told = [str(row[0]) for row in db.execute("PRAGMA quick_check(1)")]
    except (GatewayError, sqlite3.Error) as error:
        return [fault("database", str(error), AGAIN)]
    if told == ["ok"]:
        return [ok("database", "it is whole")]
    remedy = f"Stop the service, and put a backup of {FILE_NAME} back: see docs/backup.md"
    return [fault("database", told[0], remedy)]


def people_can_log_in(users: Users | None, sign_in: PasswordSignIn | ProviderSignIn) -> list[Finding]:
    """See that somebody can. `users`: of the password mode."""
    if isinstance(sign_in, PasswordSignIn):
        try:
            people = users.load().values() if users else ()
        except GatewayError as error:
            return [fault("people", str(error), "Put users.json back from a backup, or mend it")]
        able = sum(not person.disabled for person in people)
        if not able:
            return [fault("people", "nobody can log in", "Run `sudo opencode-gateway users add NAME`")]
        return [ok("people", f"{able} can log in with a password")]
    try:
        secret = sign_in.client_secret_file.read_text().strip()
    except (OSError, ValueError):
        secret = ""
    findings = [ok("people", f"{len(sign_in.users)} can log in with {sign_in.mode}")]
    if not secret:
        findings = [
            fault(
                "people",
                f"{sign_in.client_secret_file} holds no secret that can be read",
                "Write the client secret of the provider there, for the service's account",
            )
        ]
    return [*findings, *_provider_answers(_ASKED.get(sign_in.mode) or f"{sign_in.issuer}{_DISCOVERY}")]


def _provider_answers(url: str) -> list[Finding]:
    try:
        status = httpx2.get(url, timeout=_PROVIDER_SECONDS).status_code
    except httpx2.HTTPError as error:
        told = str(error) or type(error).__name__
        remedy = "See that this host's firewall, resolver and clock let it be asked"
        return [fault("provider", f"{url} is not reached: {told}", remedy)]
    if status >= 400:
        return [fault("provider", f"{url} answers {status}", "Correct sign_in.issuer in gateway.json")]
    return [ok("provider", f"{url} answers")]


def clients_may_come(store: Store, configuration: Configuration, now: float) -> list[Finding]:
    """Say whether a new client would be admitted, and which are known."""
    try:
        known = list_clients(store)
        with store.transaction(write=False) as db:
            opened = opened_at(db, now)
            switched = switches(configuration.clients, commanded(db))
    except GatewayError as error:
        return [fault("clients", str(error), AGAIN)]
    on = ", ".join(str(switch.known) for switch in switched if switch.sources)
    admitted = f"{len(known)} admitted; {on or 'no known one'} may come"
    if configuration.clients.enrolment == "open":
        return [ok("clients", f"{admitted}; new ones at any time")]
    if opened is None:
        return [
            note("clients", f"{admitted}; no new one now", "`sudo opencode-gateway clients allow` opens a window")
        ]
    return [ok("clients", f"{admitted}; new ones now, as a window is open")]


def refused_lately(store: Store, now: float) -> list[Finding]:
    """Show who was refused in the last day. Strangers can be refused at any time: that is no fault."""
    try:
        rows = list_refusals(store, since=now - _DAY)
    except GatewayError as error:
        return [fault("refusals", str(error), AGAIN)]
    if not rows:
        return [ok("refusals", "no client was refused in the last day")]
    findings = [
        note(
            "refusals",
            f"{row.client or 'a client without a name'} from {row.address or 'here'}, "
            f"{row.count} time{'' if row.count == 1 else 's'}: {row.reason}",
            _sentence(row.remedy),
        )
        for row in rows[:_SHOWN]
    ]
    if len(rows) > _SHOWN:
        findings.append(
            note("refusals", f"and {len(rows) - _SHOWN} more", "`sudo opencode-gateway refusals` lists them")
        )
    return findings


def people_are_told(people_file: Path, state_dir: Path | None) -> list[Finding]:
    """See that there are outlets, and that none fails. `state_dir`: None where it is not known here."""
    try:
        people = load_people(people_file)
        failed = failing(state_dir) if state_dir is not None else []
    except NotifyError as error:
        return [fault("telling", str(error), AGAIN)]
    except (OSError, DatabaseError) as error:
        return [fault("telling", f"what was told cannot be read: {error}", f"See {state_dir}. {AGAIN}")]
    count = sum(len(person.outlets) for person in people.values())
    if not count:
        return [
            note("telling", "nobody is told what needs them", "`sudo opencode-gateway notify add` adds an outlet")
        ]
    outlets = f"{count} outlet{'' if count == 1 else 's'}"
    if state_dir is None:
        return [note("telling", f"{outlets}; no journal is known here", "Set RELAY_STATE_DIR for the server")]
    return [
        fault(
            "telling",
            in_words(each),
            f"`sudo opencode-gateway notify test {each.person} {each.outlet}` says whether it works now",
        )
        for each in failed
    ] or [ok("telling", f"{outlets}, and none fails")]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
