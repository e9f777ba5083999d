"""The style of the server's command lines; docs/command-lines.md has its rules.

Exit codes: 0 it worked, 1 it did not or a check failed, 2 usage or settings, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from typing import NoReturn

FAILED, USAGE, INTERRUPTED = 1, 2, 130
STYLE: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_WHOLE: Final = 1_000
"""Characters that no first sentence has."""
_Function = TypeVar("_Function", bound=Callable[..., Any])


class BadSettings(click.ClickException):
    """What a program was given to work with is wrong; the text names it and the next step."""

    exit_code = USAGE


class Group(click.Group):
    """Lists its commands with the first sentence of their help, whole."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list."""
        rows = [(name, self.summary(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def summary(self, ctx: click.Context, name: str) -> str:
        """Return the first sentence of a command's help."""
        command = self.get_command(ctx, name)
        return command.get_short_help_str(_WHOLE) if command else ""


class Program(Group):
    """A program whose errors are one line, `PROGRAM: MESSAGE`, on standard error.

    Args:
        errors: what a person can mend; the text is shown, and the exit code is 1.
        settings_errors: those of `errors` that are about settings; the exit code is 2.
        extra: what has to be installed with the package for this program; empty: nothing.
    """

    def __init__(
        self,
        *args: Any,
        errors: tuple[type[Exception], ...] = (),
        settings_errors: tuple[type[Exception], ...] = (),
        extra: str = "",
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self._errors = errors
        self._settings_errors = settings_errors
        self._extra = extra

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, *rest: Any, **extra: Any
    ) -> NoReturn:
        """Run the command line and end the process with its exit code."""
        program = prog_name or self.name or "?"
        extra["standalone_mode"] = False
        try:
            code = super().main(args, program, *rest, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(USAGE)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else program
            message = error.format_message().replace("\n", " ").rstrip(".")
            _end(program, f"{message}; see `{where} --help`", USAGE)
        except click.ClickException as error:
            _end(program, error.format_message(), error.exit_code)
        except click.Abort:
            sys.exit(INTERRUPTED)
        except self._errors as error:
            _end(program, _told(error), USAGE if isinstance(error, self._settings_errors) else FAILED)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if not package or package.startswith("opencode_"):
                raise
            _end(program, _without(package, self._extra), USAGE)
        sys.exit(code if isinstance(code, int) else 0)


def program(name: str, **settings: Any) -> Callable[[Callable[..., Any]], Program]:
    """Make a function the top of a command line with `--help`, `-h` and `--version`; see `Program`."""
    version: Callable[[Callable[..., Any]], Callable[..., Any]] = click.version_option(
        package_name="opencode-relay", prog_name=name, message="%(prog)s %(version)s"
    )
    settings = {"cls": Program, "context_settings": STYLE, **settings}

    def decorate(function: Callable[..., Any]) -> Program:
        group: Any = click.group(name, **settings)
        made: Program = group(version(function))
        return made

    return decorate


def json_option(note: str = "") -> Callable[[_Function], _Function]:
    """Add `--json`, which the function gets as `as_json`. `note`: what readers have to know of the document."""
    text = "Print one JSON document instead of text."
    return click.option("--json", "as_json", is_flag=True, help=f"{text} {note}".rstrip())


def show(text: str, document: object, *, as_json: bool) -> None:
    """Print a result: `text`, or `document` as JSON."""
    click.echo(json.dumps(document) if as_json else text)


def _without(package: str, extra: str) -> str:
    missing, clone = f"{package} is not installed", "In a clone of opencode-relay: pipx install --force"
    return f"{missing}: it comes with the extra {extra}. {clone} '.[{extra}]'" if extra else f"{missing}. {clone} ."


def _told(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'the system'}: {error.strerror or error}"
    return str(error)


def _end(program: str, message: str, code: int) -> NoReturn:
    click.echo(f"{program}: {message}", err=True)
    sys.exit(code)
