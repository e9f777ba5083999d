"""Build the documentation as a site: python -m support.project.docs_site DIRECTORY

README.md is its first page. Links out of README and docs lead to the repository.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import yaml

from support.project.documents import ROOT, broken, is_elsewhere, pages, unproven, with_links

SETTINGS: Final = ROOT / ".config" / "mkdocs.yml"
DOCS: Final = ROOT / "docs"
README: Final = ROOT / "README.md"
_NAMED_BLOCK: Final = re.compile(r"(?m)^( *```+\w+) .*$")


def assemble(work: Path) -> None:
    """Write what mkdocs takes into a directory: mkdocs.yml, and all pages below docs."""
    repository = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["repository"]
    shutil.copytree(DOCS, work / "docs")
    shutil.copy(SETTINGS, work / "mkdocs.yml")
    for page in pages():

        def within_site(target: str, page: Path = page) -> str:
            path, mark, anchor = target.partition("#")
            if is_elsewhere(target) or not path:
                return target
            to = (page.parent / path).resolve()
            if to == README:
                return f"{_way_up(page)}index.md{mark}{anchor}"
            if to.is_relative_to(DOCS):
                return f"{_way_up(page)}{to.relative_to(DOCS)}{mark}{anchor}"
            return f"{repository}/blob/main/{to.relative_to(ROOT)}{mark}{anchor}"

        text = with_links(page.read_text(encoding="utf-8"), within_site)
        to = work / "docs" / ("index.md" if page == README else page.relative_to(DOCS))
        # What stands behind the language is for tests, and mkdocs would take it for options.
        to.write_text(_NAMED_BLOCK.sub(r"\1", text), encoding="utf-8")


def _way_up(page: Path) -> str:
    return "" if page == README else "../" * (len(page.relative_to(DOCS).parts) - 1)


def build(site: Path) -> str:
    """Build the site; return what mkdocs says of an error, or nothing."""
    with tempfile.TemporaryDirectory() as work:
        assemble(Path(work))
        command = [sys.executable, "-m", "mkdocs", "--quiet", "build", "--config-file", f"{work}/mkdocs.yml"]
        # Material tells of its successor at each start.
        environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
        done = subprocess.run(
            [*command, "--site-dir", site.resolve()], env=environment, capture_output=True, text=True, check=False
        )
    return done.stdout + done.stderr if done.returncode else ""


def main() -> int:
    """Check the links, build the site, and list which shell blocks are not proven; return the exit code."""
    texts = {page: page.read_text(encoding="utf-8") for page in pages()}
    faults = [fault for page, text in texts.items() for fault in broken(page, text)]
    said = "\n".join(faults) or build(Path(sys.argv[1]))
    if said:
        print(said, file=sys.stderr)
        return 1
    for line in (line for page, text in texts.items() for line in unproven(page, text)):
        print(line)
    print(f"To read it, with search: python3 -m http.server --bind 127.0.0.1 --directory {sys.argv[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
