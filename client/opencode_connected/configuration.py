"""Changes settings in the user's config.toml, and leaves everything else in it as it is."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

from opencode_connected.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


def with_settings(text: str, settings: Mapping[str, str]) -> str:
    """Return the file `text` with `settings` in it; the values are printable.

    Raises:
        UsageError: the file is written in a way that is not understood well enough to change it.

    """
    wanted = {**tomllib.loads(text), **settings}
    for key, value in settings.items():
        line = f"{key} = {_quoted(value)}"
        if old := re.search(rf"^[ \t]*{key}[ \t]*=.*$", text, flags=re.MULTILINE):
            text = text[: old.start()] + line + text[old.end() :]
            continue
        if text and not text.endswith("\n"):
            text += "\n"
        text += f"{line}\n"
    if _parsed(text) != wanted:
        lines = "; ".join(f"{key} = {_quoted(value)}" for key, value in settings.items())
        raise UsageError(f"config.toml cannot be changed safely: write these settings into it yourself: {lines}")
    return text


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _parsed(text: str) -> dict[str, object] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
