"""What benchmarks print: values, and whether they keep what was promised."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Figure:
    """One measured value; `limit` is the most that it may be, where something was promised."""

    what: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def verdict(self) -> str:
        """Say whether the promise is kept."""
        if self.limit is None:
            return ""
        return "ok" if self.value <= self.limit else "OVER"


def show(title: str, figures: Sequence[Figure], *, as_json: bool) -> None:
    """Print figures, for people or as JSON."""
    if as_json:
        print(json.dumps([asdict(figure) for figure in figures], indent=1))
        return
    table = Table("figure", "value", "", "at most", "", title=title)
    for figure in figures:
        limit = "" if figure.limit is None else f"{figure.limit:.4g}"
        table.add_row(figure.what, f"{figure.value:.4g}", figure.unit, limit, figure.verdict)
    Console(width=120).print(table)
