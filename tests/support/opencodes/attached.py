"""OpenCode 1 behind the guard of the real launcher, which is attached to it and registers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from support.opencodes.driven import NAME, Driven1
from support.opencodes.headless import Headless

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from support.opencodes.opencode import OpenCodeHome


class Attached1(Driven1):
    """A served OpenCode 1 as a person's machine makes it reachable. Its owner lets `always` through, too."""

    def __init__(self, home: OpenCodeHome, directory: Path, *, name: str = NAME) -> None:
        super().__init__(home, directory, name=name)
        self.launcher = Headless(
            home,
            directory,
            self.registry,
            name,
            rights="observe drive approve always",
            arguments=("attach", str(self.served.port)),
        )

    def __enter__(self) -> Self:
        self.served.start()
        try:
            self.launcher.start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.launcher.end()
        finally:
            super().__exit__(kind, error, trace)

    @property
    def port(self) -> int:
        """See `Driven`."""
        return int(self.launcher.registration()["port"])

    def register_at(self, registry_dir: Path, name: str, port: int) -> None:
        """See `Driven`."""
        self.launcher.register_at(registry_dir, name, port)

    def revive(self) -> None:
        """See `Driven`: its launcher ends with it."""
        self.served.start()
        self.launcher.end()
        self.launcher.start()
