"""What ssh says on stderr, as one clear line, the remedy, and whether trying again helps.

OpenSSH has no other channel for its reasons than English text on stderr, the same in every locale. The table is held
against a real ssh by the tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from opencode_connected.line.errors import Hop, LineError
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class _Rule:
    """If `pattern` matches a line of stderr: its groups fill `message`. `enrolled`: an enrolled machine's remedy.

    `before_login`: what it matches means this only where nothing was heard of a log-in.

    In both remedies `{command}` becomes what the person calls the command.
    """

    pattern: re.Pattern[str]
    hop: Hop
    message: str
    remedy: str
    permanent: bool
    enrolled: str
    before_login: bool


def _rule(
    pattern: str,
    hop: Hop,
    message: str,
    remedy: str,
    *,
    permanent: bool = False,
    enrolled: str | None = None,
    before_login: bool = False,
) -> _Rule:
    enrolled = remedy if enrolled is None else enrolled
    return _Rule(re.compile(pattern), hop, message, remedy, permanent, enrolled, before_login)


_JOIN_AGAIN: Final = "if the relay was set up anew, enroll with its new join line; if not, do not connect"
KEY_REFUSED: Final = (
    "the relay's administrator must have the line that `opencode-connected enroll` prints; if that key was revoked "
    "or is damaged, make another with `opencode-connected enroll --new-key`"
)
"""An enrolled machine's remedy."""
_CLOSED: Final = "the relay's sshd closed the connection before the log-in"
_WHY_CLOSED: Final = "it may be overloaded or starting, or have locked this address out for a while"
_WHY_CLOSED_TO_US: Final = f"{_WHY_CLOSED}; if you gave a --proxy-command, run that by hand: it stands in {{command}}"


# The first rule that matches any line wins: the cause stands before what follows from it.
_RULES: Final = (
    _rule(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "host-key",
        "the relay's host key is not the one that this machine knows",
        "if the relay was set up anew, remove the old key with `ssh-keygen -R HOST`; if not, do not connect",
        permanent=True,
        enrolled=_JOIN_AGAIN,
    ),
    _rule(
        r"REVOKED HOST KEY|Host key .* revoked",
        "host-key",
        "the relay's host key is marked as revoked",
        "do not connect before its administrator has told you the new key",
        permanent=True,
    ),
    _rule(
        r"Host key verification failed",
        "host-key",
        "this machine does not know the relay's host key",
        "connect once by hand with the same ssh command, compare the fingerprint, and answer yes",
        permanent=True,
        enrolled=_JOIN_AGAIN,
    ),
    _rule(
        r"Permissions \d+ for '(.+)' are too open",
        "authentication",
        "ssh ignores the private key {0}, as others may read its file",
        "run `chmod 600` on that file",
        permanent=True,
    ),
    _rule(
        r"Too many authentication failures",
        "authentication",
        "the relay gave up after too many keys",
        "name the right key with `-i KEY -o IdentitiesOnly=yes` in {command}",
        permanent=True,
    ),
    _rule(
        r"^(?:\S+: )?Permission denied \(([^)]*)\)",
        "authentication",
        "the relay refuses the key ({0})",
        "check user and key in {command}; a key with a passphrase must be in the agent (`ssh-add`), "
        "since nothing can be asked here",
        permanent=True,
        enrolled=KEY_REFUSED,
    ),
    _rule(
        r"[Bb]ad configuration option: (\S+)|[Uu]nsupported option \"(\S+)\"",
        "command",
        "ssh does not know the option {0}",
        "remove it from {command} or from ~/.ssh/config",
        permanent=True,
    ),
    _rule(
        r"^(?:unknown option|ssh: illegal option|usage: ssh|hostname contains invalid characters)",
        "command",
        "ssh does not understand the command line",
        "{command} must be what opens a shell on the relay, such as `ssh user@relay`",
        permanent=True,
        enrolled="enroll with the join line again: it writes {command} anew",
    ),
    _rule(
        r"Unable to negotiate with .*: (no matching .+?) found",
        "network",
        "ssh and the relay have nothing in common: {0}",
        "update the older of the two",
        permanent=True,
    ),
    _rule(
        r"Could not resolve hostname ([^:\s]+)",
        "network",
        "the name {0} cannot be resolved",
        "check the host in {command} and this machine's network",
    ),
    _rule(
        r"connect to host (\S+) port (\d+): Connection refused",
        "network",
        "{0} refuses connections on port {1}",
        "check that the relay's sshd runs, and its port",
    ),
    _rule(
        r"connect to host (\S+) port (\d+): .*timed out|Connection timed out during banner exchange",
        "network",
        "{0} does not answer",
        "check that the relay is up, this machine's network, and the firewall between them",
    ),
    _rule(
        r"connect to host (\S+) port \d+: (.+)",
        "network",
        "{0} cannot be reached: {1}",
        "check this machine's network",
    ),
    _rule(
        r"Not allowed at this time|Exceeded MaxStartups|(?:kex_exchange_identification|banner exchange): .*",
        "network",
        _CLOSED,
        _WHY_CLOSED,
        enrolled=_WHY_CLOSED_TO_US,
    ),
    _rule(
        r"\(gcloud\.[a-z.]+\) .*(?:[Rr]eauthenticat|do not currently have an active account|credentials)",
        "command",
        "gcloud is not logged in",
        "run `gcloud auth login`",
        permanent=True,
    ),
    _rule(
        r"\(gcloud\.[a-z.]+\) (?!\[\S+\] exited with return code)(.+)",
        "command",
        "gcloud: {0}",
        "run the command of {command} by hand",
        permanent=True,
        enrolled="run what you gave as --proxy-command by hand: it stands in {command}",
    ),
    _rule(
        r"This account is (?:currently )?not available|^nologin",
        "relay",
        "the account on the relay has no shell",
        "use an account with one, or have the relay provisioned",
        permanent=True,
    ),
    _rule(
        r"^(?:bash|sh|dash|zsh|fish|csh|tcsh|ash)?(?:: line \d+)?:? ?(?:exec: )?sh: (?:command )?not found",
        "relay",
        "the relay has no sh",
        "the account needs a POSIX shell",
        permanent=True,
    ),
    _rule(
        r"Timeout, server (\S+) not responding",
        "lost",
        "{0} stopped answering",
        "",
    ),
    # All that OpenSSH 10 says of such an end at its usual level, and the end of a line that was up.
    _rule(
        r"^Connection (?:closed|reset) by |^Read from remote",
        "network",
        _CLOSED,
        _WHY_CLOSED,
        enrolled=_WHY_CLOSED_TO_US,
        before_login=True,
    ),
    _rule(
        r"client_loop: send disconnect|Connection to \S+ closed by|Connection (?:closed|reset) by|Read from remote",
        "lost",
        "the connection to the relay broke",
        "",
    ),
)

# What ssh, gcloud and shells say without anything being wrong.
_NOISE: Final = re.compile(
    r"^(?:Warning: |WARNING: |debug\d: |\*\* |Pseudo-terminal|PTY allocation|Allocated port|Killed by |Terminated"
    r"|Authenticated to |Transferred: sent |Bytes per second: "
    r"|bind |channel_setup_|Could not request local forwarding|Connection to \S+ closed\.$|Updating |Waiting for SSH"
    r"|External IP address was not found|\s*$)|exited with return code"
)
_DEBUG: Final = re.compile(r"debug\d: ")
_LOGIN: Final = re.compile(r"Authenticated to \S+ ")
_OLD_SSH: Final = re.compile(r"[Bb]ad configuration option: (?:forkafterauthentication|stdinnull|sessiontype)")
_ALLOCATED: Final = re.compile(r"^Allocated port (\d{1,5}) for remote forward to (.+?)(?::-\d+)?$")
"""Behind a socket's path ssh writes a number below zero for its port."""
_FORWARD_FAILED: Final = re.compile(r"remote port forwarding failed for listen port (\d{1,5})$")


def diagnose(
    output: Sequence[str],
    status: int | None,
    *,
    has_begun: bool = False,
    is_enrolled: bool = False,
    command: str = "RELAY_SSH_CMD",
) -> LineError:
    """Return what ended ssh.

    `output` are its last lines, those of stderr at the end. `status` is its exit status (negative: the signal that
    ended it; None: it has not ended, but its output has). `is_enrolled`: it used an enrolled machine's key.
    `has_begun`: what the relay runs for us has spoken.
    `command`: what the person calls the command that ssh was started with.
    """
    words = [line for line in output if not _DEBUG.match(line)]
    is_in = any(map(is_login, output))
    for rule in _RULES:
        if rule.before_login and (is_in or has_begun):
            continue
        for line in words:
            if match := rule.pattern.search(line):
                groups = [printable(group, limit=200) for group in match.groups() if group is not None] or [
                    "the relay"
                ]
                message = rule.message.format(*groups)
                remedy = (rule.enrolled if is_enrolled else rule.remedy).format(command=command)
                return LineError(message, hop=rule.hop, remedy=remedy, permanent=rule.permanent)
    if status is not None and status < 0:
        return LineError(f"ssh was ended by signal {-status}", hop="lost")
    telling = last_words(words)
    said = f": {telling}" if telling else ""
    if status is not None and not has_begun and is_in:
        return LineError(
            f"the relay lets this account in, and ends the session with status {status} before our command{said}",
            hop="account",
            remedy="the account needs a shell, and no forced command or startup file that ends what comes over ssh",
        )
    ended = "the relay's end of the line ended" if status is None else f"ssh ended with status {status}"
    return LineError(
        f"{ended}{said}",
        hop="relay",
        remedy=f"run the command of {command} by hand" if said else "",
    )


def last_words(output: Iterable[str]) -> str:
    """Return the last line that is not what ssh, gcloud and shells say without anything being wrong, or nothing."""
    telling = [text for line in output if not _NOISE.search(line) and (text := printable(line, limit=200))]
    return telling[-1] if telling else ""


def is_login(line: str) -> bool:
    """Tell whether this line of stderr says that a host, the relay or one on the way to it, let us in."""
    return _LOGIN.match(line) is not None


def is_old_ssh(stderr: Sequence[str]) -> bool:
    """Tell whether this ssh is older than 8.7 and stumbled over options that it has no need of."""
    return any(_OLD_SSH.search(line) for line in stderr)


def allocated_port(line: str, local_port: int, socket: str | None = None) -> int | None:
    """Return the relay's port of the tunnel to `local_port` or `socket`, if this line of stderr tells it.

    It is told where any port was asked for: `-R 127.0.0.1:0:…`.
    """
    match = _ALLOCATED.match(line)
    return int(match.group(1)) if match and match.group(2) == (socket or f"127.0.0.1:{local_port}") else None


def is_forward_failure(line: str, port: int) -> bool:
    """Tell whether this line of stderr says that the relay does not listen on `port` (0: on any) for us.

    The user's own configuration may ask for further forwards: their failures are not ours.
    """
    match = _FORWARD_FAILED.search(line)
    return match is not None and match.group(1) == str(port)
