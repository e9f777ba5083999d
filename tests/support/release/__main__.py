"""`python -m support.release`: build a release, prepare one, or say what is new in it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from support.release.build import Release
from support.release.project import ROOT, NotReady, prepare


def main() -> int:
    """Do it; return 1, after one line that says why, if it cannot be done."""
    parser = argparse.ArgumentParser("support.release", description=__doc__)
    verbs = parser.add_subparsers(required=True, dest="verb", metavar="COMMAND")
    verb = verbs.add_parser("build", help="build everything into dist/")
    verb.add_argument(
        "--tag", default="", help="refuse if it is not the version's, or the changelog has nothing of it"
    )
    verb.add_argument("--no-images", action="store_true", help="all but the images")
    verb = verbs.add_parser("prepare", help="write a new version wherever it stands, and date the changelog")
    verb.add_argument("to", metavar="VERSION")
    options = parser.parse_args()
    try:
        if options.verb == "prepare":
            prepare(options.to, datetime.now(UTC).date())
        else:
            with tempfile.TemporaryDirectory() as work:
                Release(ROOT / "dist", options.tag).build(Path(work), images=not options.no_images)
    except NotReady as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"This failed, and says above why: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
