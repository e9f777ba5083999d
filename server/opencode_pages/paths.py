"""Where the pages are."""

from __future__ import annotations

import re
from typing import Final

INBOX_PATH: Final = "/inbox"
ASKS_PATH: Final = "/asks"
"""Behind it the handle of an ask."""
TOLD_PATH: Final = "/told"
"""Behind it the id of a message that told a person something: it leads on to what needs them."""
ACCOUNT_PATH: Final = "/account"
"""Where a person adds and removes passkeys, if whoever serves the pages has them."""
LEAVE_PATH: Final = "/leave"
"""Takes the form that ends a visit."""
PUSH_PATH: Final = "/push"
"""Takes a browser's subscription for Web Push, or ends it."""
RECEIPTS_PATH: Final = "/receipts"
"""Takes what a service worker says of a message that it showed."""
HANDLE: Final = re.compile(r"[A-Za-z0-9]{1,20}")
"""What may be the handle of an ask."""
MESSAGE: Final = re.compile(r"[0-9a-f]{20}")
"""What may be the id of a message."""
