"""`python -m opencode_mcp`."""

import sys

from opencode_mcp.cli import main

sys.exit(main())
