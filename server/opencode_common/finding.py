"""What a check says, and how it is shown."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

State = Literal["ok", "fault", "note"]
"""`note`: it cannot be seen from here, and is for a person to know."""


@dataclass(frozen=True)
class Finding:
    """One line. `check`: what was looked at; `remedy`: what to do about it."""

    check: str
    state: State
    text: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """It, for a terminal."""
        head = f"{self.state if self.state != 'fault' else 'FAULT':<5} {self.check}: {self.text}"
        return f"{head}. {self.remedy}" if self.remedy else head


def ok(check: str, text: str) -> Finding:
    """Return that all is well."""
    return Finding(check, "ok", text)


def fault(check: str, text: str, remedy: str) -> Finding:
    """Return what is wrong, and what to do."""
    return Finding(check, "fault", text, remedy)


def note(check: str, text: str, remedy: str = "") -> Finding:
    """Return what cannot be told, or is no fault and worth knowing."""
    return Finding(check, "note", text, remedy)


def is_sound(findings: Sequence[Finding]) -> bool:
    """Tell whether there is no fault."""
    return all(finding.state != "fault" for finding in findings)


def to_text(findings: Sequence[Finding]) -> str:
    """Return them for a terminal, a line each."""
    return "\n".join(finding.line for finding in findings)


def to_json(findings: Sequence[Finding]) -> str:
    """Return `{"ok":bool,"findings":[{"check":…,"state":…,"text":…,"remedy":…},…]}`."""
    return json.dumps({"ok": is_sound(findings), "findings": [asdict(finding) for finding in findings]})
