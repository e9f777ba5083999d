"""The command line of `opencode-connected`: parsing and exit codes; each verb's work is in `commands/`."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from opencode_connected import settings
from opencode_connected.errors import LauncherError
from opencode_connected.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from opencode_connected.result import CommandResult

PROGRAM = "opencode-connected"
_COMPLETE_VARIABLE = "_OPENCODE_CONNECTED_COMPLETE"
"""Where the completion script and click meet; click derives it from the program's name."""

_MAX_LINE = 2000

_HELP = """Start OpenCode here and make it reachable for an MCP client.

Without COMMAND, OpenCode starts in this terminal with OPENCODE ARGS.

\b
Settings, from the environment or (in lower case) from config.toml in the user's
configuration directory:
  RELAY_SSH_CMD       how to reach the relay, e.g. "ssh me@relay"; unset: no relay
  RELAY_REGISTRY_DIR  where instances are registered [/tmp/opencode-relay]
  INSTANCE_NAME       this instance's name [HOSTNAME-DIRECTORY]
  RELAY_PORTS         ports to use on the relay, e.g. 10000-10009 [any]
  RELAY_CLIENT        what names of an enrolled machine begin with instead of HOSTNAME
  RELAY_REMOTE        what may come from afar, `remote` in config.toml: words of observe,
                      drive, approve, always, commands-with-shell [observe drive approve]
  directories         in config.toml alone, a list: where, with everything below, OpenCode 2
                      may be worked with from afar besides the directories it was started in
                      here [with --headless the home directory, else none]
  open_below          in config.toml alone, a list: in and below what directories new instances
                      of OpenCode 2 may be opened from afar while --headless runs [nowhere]

\b
Exit codes: OpenCode's own once it runs; before that, and for the commands:
  0 it worked   1 it did not, or a check failed   2 usage or settings   3 no usable OpenCode
  4 the relay refuses   5 the name is taken   6 the registry directory is unsafe
  126 OpenCode cannot be executed   127 what it is run by is not there   130 interrupted
"""

_ENROLL_HELP = """Make this machine known to a provisioned relay.

\b
First without options: it makes this machine's key and prints the line for the
relay's inventory. Then with the join line that the relay's playbook printed:
  opencode-connected enroll --join JOIN-LINE

\b
A key that was revoked or is damaged is replaced, and the new one enrolled as the first was:
  opencode-connected enroll --new-key
"""

_SERVICE_HELP = """Keep this machine reachable in the background, with OpenCode 2.

A service of your own (systemd's user manager, or launchd on macOS) runs
`opencode-connected --headless` in your home directory. It takes the settings and the PATH that
this shell has when you install it: after a change, install it again.
"""

_COMPLETION_HELP = """Print the completion script for SHELL.

\b
For bash, in ~/.bashrc:  eval "$(opencode-connected completion bash)"
For zsh, in ~/.zshrc:    eval "$(opencode-connected completion zsh)"
For fish:                opencode-connected completion fish | source
"""


@click.group(
    help=_HELP,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="[COMMAND] [-- OPENCODE ARGS]",
)
@click.option("--headless", is_flag=True, help="Reachable, without a full-screen interface.")
@click.option("--local", is_flag=True, help="Register on this machine even if RELAY_SSH_CMD is set.")
@click.version_option(package_name="opencode-relay", prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, *, headless: bool, local: bool) -> None:
    """Start OpenCode, or leave it to the command that was named."""
    if context.invoked_subcommand is not None:
        if headless or local:
            raise click.UsageError("--headless and --local are for starting OpenCode, not for commands")
        if context.obj:
            raise click.UsageError(f"{context.invoked_subcommand} passes nothing on to OpenCode: leave out `--`")
        return
    from opencode_connected.agents.run import Launch  # noqa: PLC0415 - each verb loads its own
    from opencode_connected.launcher import launch  # noqa: PLC0415

    what = Launch(arguments=context.obj or (), headless=headless, local=local)
    _exit_like(launch(settings.load(), what, _say))


_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


@cli.command()
@_json
def status(*, as_json: bool) -> None:
    """Show this machine's instances and their line."""
    from opencode_connected.commands.status import status as run  # noqa: PLC0415 - each verb loads its own

    _finish(run(settings.load()), as_json=as_json)


@cli.command()
@click.option("--limit", type=click.IntRange(1, 100), default=5, show_default=True, help="Sessions per instance.")
@_json
def sessions(*, limit: int, as_json: bool) -> None:
    """Show the recent sessions of each instance here."""
    from opencode_connected.commands.sessions import sessions as run  # noqa: PLC0415 - each verb loads its own

    _finish(run(settings.load(), limit=limit), as_json=as_json)


@cli.command()
@_json
def cleanup(*, as_json: bool) -> None:
    """Remove what dead instances left behind here."""
    from opencode_connected.commands.cleanup import cleanup as run  # noqa: PLC0415 - each verb loads its own

    _finish(run(settings.load()), as_json=as_json)


@cli.command()
@click.argument("what", metavar="NAME|DIRECTORY")
@_json
def close(what: str, *, as_json: bool) -> None:
    """Close an instance that was opened from afar."""
    from opencode_connected.commands.close import close as run  # noqa: PLC0415 - each verb loads its own

    _finish(run(settings.load(), what), as_json=as_json)


@cli.command()
@_json
def doctor(*, as_json: bool) -> None:
    """Try each hop; say what is wrong and how to mend it."""
    from opencode_connected.commands.doctor import doctor as run  # noqa: PLC0415 - each verb loads its own

    _finish(run(settings.load()), as_json=as_json)


@cli.command()
@click.argument("target", metavar="URL|PORT")
@click.option(
    "--password-file", type=click.Path(path_type=Path), help="The server's password, in a file of one line."
)
@click.option("--local", is_flag=True, help="Register on this machine even if RELAY_SSH_CMD is set.")
def attach(target: str, *, password_file: Path | None, local: bool) -> None:
    """Make an OpenCode 1 server here reachable."""
    from opencode_connected.agents.adopted import attach as run  # noqa: PLC0415 - each verb loads its own

    _exit_like(run(settings.load(), target, password_file=password_file, local=local, say=_say))


@cli.command(help=_ENROLL_HELP)
@click.argument("argument", metavar="[JOIN-LINE]", required=False)
@click.option("--name", metavar="NAME", help="What the relay is to call this machine [as it does, or the host name].")
@click.option("--join", "join_line", metavar="JOIN-LINE", help="Write how to reach the relay to config.toml.")
@click.option("--proxy-command", metavar="COMMAND", help="With --join: what ssh connects through, see ssh_config(5).")
@click.option("--new-key", is_flag=True, help="Make another key in the place of this machine's.")
@click.option("--check", is_flag=True, help="Change nothing; tell what would change.")
@_json
def enroll(
    *,
    argument: str | None,
    name: str | None,
    join_line: str | None,
    proxy_command: str | None,
    new_key: bool,
    check: bool,
    as_json: bool,
) -> None:
    """Make this machine known to a provisioned relay."""
    from opencode_connected.commands.enroll import enroll as make_key  # noqa: PLC0415 - each verb loads its own
    from opencode_connected.commands.enroll import join  # noqa: PLC0415 - as above

    if argument is not None:
        if join_line is not None:
            raise click.UsageError(
                f"{argument!a} is too much: the join line is one word, without a blank or a line break"
            )
        if not argument.strip().startswith("ocr"):
            raise click.UsageError(f"{argument!a} is no join line; did you mean --name?")
        join_line = argument
    if join_line is None:
        if proxy_command is not None:
            raise click.UsageError("--proxy-command is for --join")
        _finish(make_key(settings.load(), name=name, check=check, new_key=new_key), as_json=as_json)
    if new_key:
        raise click.UsageError("--new-key comes first: the relay must know the key before this machine joins")
    if name is not None:
        raise click.UsageError("--name is for making the key: the join line has the name by which the relay knows it")
    _finish(join(settings.load(), join_line, proxy_command=proxy_command, check=check), as_json=as_json)


@cli.group(help=_SERVICE_HELP, short_help="Keep this machine reachable in the background.")
def service() -> None:
    """Keep this machine reachable in the background."""


@service.command("install")
@click.option("--check", is_flag=True, help="Change nothing; tell whether anything would change.")
@_json
def service_install(*, check: bool, as_json: bool) -> None:
    """Have the launcher run now and from the next boot or login on."""
    from opencode_connected.commands.service import install  # noqa: PLC0415 - each verb loads its own

    # By the path of the call: where that is a link, an upgrade changes what it leads to.
    program = Path(os.path.abspath(sys.argv[0]))  # noqa: PTH100 - links are not to be followed
    _finish(install(settings.load(), program, check=check), as_json=as_json)


@service.command("uninstall")
@_json
def service_uninstall(*, as_json: bool) -> None:
    """End the service and remove what `install` wrote."""
    from opencode_connected.commands.service import uninstall  # noqa: PLC0415 - each verb loads its own

    _finish(uninstall(settings.load()), as_json=as_json)


@service.command("status")
@_json
def service_status(*, as_json: bool) -> None:
    """Tell whether the service runs, since when, and where its log is."""
    from opencode_connected.commands.service import status as run  # noqa: PLC0415 - each verb loads its own

    _finish(run(settings.load()), as_json=as_json)


@cli.command(help=_COMPLETION_HELP)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell."""
    completer = get_completion_class(shell)
    if completer is None:
        raise AssertionError(f"click knows no {shell}")
    click.echo(completer(cli, {}, PROGRAM, _COMPLETE_VARIABLE).source())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; what follows `--` is OpenCode's."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for_opencode: list[str] = []
    if "--" in given:
        split = given.index("--")
        given, for_opencode = given[:split], given[split + 1 :]
    try:
        # Not as a program of its own: click's words for a usage error are three lines.
        code = cli.main(given, prog_name=PROGRAM, obj=for_opencode, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else PROGRAM
        _say(f"{error.format_message().rstrip('.')}; see `{where} --help`")
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(128 + signal.SIGINT)
    except LauncherError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package.startswith("opencode_"):
            raise
        _say(f"{package} is not installed. In a clone of opencode-relay: pipx install --force .")
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _finish(result: CommandResult, *, as_json: bool) -> NoReturn:
    from opencode_connected.result import show  # noqa: PLC0415 - pydantic; starting OpenCode does without

    show(result, as_json=as_json)
    sys.exit(result.exit_code)


def _say(line: str) -> None:
    with suppress(OSError):  # a terminal that was closed
        click.echo(f"{PROGRAM}: {printable(line, limit=_MAX_LINE)}", err=True)


def _exit_like(code: int) -> NoReturn:
    """End as OpenCode did: with its exit code, or by the signal that ended it."""
    if code < 0:
        if -code in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        sys.exit(128 - code)
    sys.exit(code)
