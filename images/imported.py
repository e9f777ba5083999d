"""Print the files of all modules that importing the named packages imports: an image keeps their bytecode.

What these libraries import besides, they import for features that nothing here uses.
"""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from pathlib import Path


def main(names: list[str]) -> None:
    """Import everything below `names`, then say what has come along, of this environment alone."""
    for name in names:
        for module in pkgutil.walk_packages(import_module(name).__path__, f"{name}."):
            if not module.name.endswith(".__main__"):
                import_module(module.name)
    files = {getattr(module, "__file__", None) for module in sys.modules.values()}
    environment = Path(sys.prefix)
    for file in sorted(filter(None, files)):
        if file.endswith(".py") and environment in Path(file).parents:
            print(file)


if __name__ == "__main__":
    main(sys.argv[1:])
