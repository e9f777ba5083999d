"""Which commands of OpenCode act before anybody is asked: they run a shell, or read a file of the laptop.

OpenCode puts the arguments into a command's template. Of the whole it then runs each !`…` in a shell and reads each
@file, without asking. So a command is harmless only if its template is known and neither it nor the arguments, nor
both together, can hold such a thing.
"""

from __future__ import annotations

import re

from opencode_connected.guard.routes import member

_PLACEHOLDER = re.compile(r"\$(?:ARGUMENTS|\d+)")
_SHELL = "!`"
_FILE_OF_ARGUMENTS = re.compile(r"@\S*\$")
_ACTING_IN_ARGUMENTS = re.compile("[@$]")
"""An `@file`, or JavaScript's `$'`, `` $` `` and `$&`: OpenCode 1 puts parts of the template for these."""


def acts_unasked(name: object, arguments: object, told: object) -> bool:
    """Tell whether a command may act unasked, `told` being OpenCode's own list of its commands.

    One that is not in the list, or whose template is not told, may do anything.
    """
    entries = told if isinstance(told, list) else member(told, "data")
    entries = entries if isinstance(entries, list) else []
    templates = [member(entry, "template") for entry in entries if member(entry, "name") == name]
    return not templates or any(_may_act(template, arguments) for template in templates)


def _may_act(template: object, arguments: object) -> bool:
    if not isinstance(template, str) or not isinstance(arguments, str):
        return True
    # A placeholder may become nothing, and what stood on both sides of it then stands together.
    if _SHELL in template or _SHELL in _PLACEHOLDER.sub("", template) or _FILE_OF_ARGUMENTS.search(template):
        return True
    if _ACTING_IN_ARGUMENTS.search(arguments):
        return True
    whole = template + arguments
    is_quoted = "!" in whole and "`" in whole
    return is_quoted and ("!" in arguments or "`" in arguments)
