"""What HTTP clients of loopback need not do: load the certificates of all the world, again for each client."""

from __future__ import annotations

import ssl
from typing import Final

NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For `verify=` of clients that speak plain HTTP. It trusts nobody, so that one which meets TLS fails."""
