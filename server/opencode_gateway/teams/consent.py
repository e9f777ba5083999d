"""Pages around FastMCP's consent, which people read before they log in at a provider.

What it decides stays its own: tokens, cookies, who is sent where. Its pages are not shown: they have "Allow" first,
put what is asked for behind a fold, and want a picture from elsewhere. FastMCP takes no others in their place, so the
token of its form is carried over into ours; a page without one is an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from opencode_gateway.capabilities import CAPABILITIES, MEANING
from opencode_gateway.pages.forms import start_again
from opencode_gateway.pages.rendering import page

if TYPE_CHECKING:
    from fastmcp.server.auth.oauth_proxy.models import OAuthTransaction
    from starlette.responses import Response

    from opencode_gateway.oauth.requests import Pending

_TOKEN: Final = re.compile(rb'name="csrf_token" value="([A-Za-z0-9_-]{20,200})"')
_REASONS: Final = {
    400: "It was answered already, took too long, or is not one that this gateway knows.",
    403: "It was begun in another browser, or its form lay open for too long.",
}


def consent_page(
    given: Response,
    transaction: OAuthTransaction,
    pending: Pending,
    *,
    provider: str,
    message: str | None = None,
) -> Response:
    """Return our page for FastMCP's, with its token and its cookies.

    Args:
        given: what FastMCP would show.
        transaction: the login that it is about.
        pending: what is asked, and by whom.
        provider: where the person logs in afterwards.
        message: what was wrong with the last answer.
    """
    token = _TOKEN.search(bytes(given.body))
    if given.status_code != 200 or token is None:
        return plain(given)
    values: dict[str, object] = {
        "client": pending.client_name,
        "vouched_by": urlsplit(pending.client_id).hostname if pending.document else None,
        "returns_to": pending.redirect_host,
        "resource": pending.resource,
        "provider": provider,
        "message": message,
        "capabilities": [(each, MEANING[each], True) for each in CAPABILITIES if each in pending.capabilities],
        "request": transaction.txn_id,
        "token": token[1].decode(),
    }
    shown = page("team_consent.html", values, status=200 if message is None else 400, leads_away=True)
    shown.raw_headers.extend(header for header in given.raw_headers if header[0] == b"set-cookie")
    return shown


def plain(given: Response) -> Response:
    """Return a page of ours in place of an error page of FastMCP's; anything else as it is."""
    if given.status_code in range(300, 400):
        return given
    status = given.status_code if given.status_code >= 400 else 500
    reason = _REASONS.get(status, "The gateway could not answer it; its log says why.")
    return start_again("This login cannot go on", reason, status=status)
