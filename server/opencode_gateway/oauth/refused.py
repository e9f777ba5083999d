"""How a refusal is told: as a page to a person's browser, as OAuth's error to a program; how it is found in one."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.responses import JSONResponse, Response

from opencode_gateway.pages.visits import address_of
from opencode_gateway.refusals import Refusal
from opencode_pages.rendering import problem_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from opencode_gateway.refusals import Kind

FORM: Final = "application/x-www-form-urlencoded"
NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_REGISTER: Final = "/register"
_KINDS: Final[dict[str, Kind]] = {
    "invalid_client": "authentication",
    "invalid_redirect_uri": "redirect",
}
"""What an error of OAuth's is among refusals; all others are requests that are not in order."""
_REMEDIES: Final = {
    "invalid_client": "Connect the client anew: see `sudo opencode-gateway clients list`",
    "invalid_grant": "Connect the client anew: its login has ended, or was used twice",
    "invalid_target": "Give the client the URL that `sudo opencode-gateway check` prints first",
}
CLIENTS_AFFAIR: Final = "update the client, or report this to those who make it"


def oauth_error(code: str, description: str, status: int) -> Response:
    """Return OAuth's error."""
    return JSONResponse({"error": code, "error_description": description}, status_code=status, headers=NO_STORE)


def is_persons(request: Request) -> bool:
    """Tell whether a person's browser asks, and no program."""
    return "text/html" in request.headers.get("accept", "")


def told(request: Request, refusal: Refusal) -> Response:
    """Tell a person's browser, or a program, why the client cannot be answered, and what helps."""
    if refusal.kind == "authentication":
        return oauth_error("invalid_client", refusal.told, 401)
    if request.url.path == _REGISTER:
        code = "invalid_redirect_uri" if refusal.kind == "redirect" else "invalid_client_metadata"
        return oauth_error(code, refusal.told, 400)
    if not is_persons(request):
        return oauth_error("invalid_request", refusal.told, 400)
    paragraphs = [f"The chat client cannot be connected: {refusal.reason}."]
    if refusal.remedy:
        remedy = refusal.remedy.replace("`", "").rstrip(".")
        paragraphs.append(f"{remedy[:1].upper()}{remedy[1:]}.")
    return problem_page("Not connected", *paragraphs, command=refusal.command)


def refusal_in(response: Response) -> Refusal | None:
    """Return the refusal that an answer of OAuth's is; None if it is none."""
    answer: dict[str, object] = {}
    if 400 <= response.status_code < 500:
        with suppress(ValueError):
            parsed = json.loads(bytes(response.body))
            answer = parsed if isinstance(parsed, dict) else {}
    elif location := response.headers.get("location"):
        answer = dict(parse_qsl(urlsplit(location).query))
    if "error" not in answer:
        return None
    code = str(answer["error"])
    return Refusal(
        kind=_KINDS.get(code, "request"),
        reason=str(answer.get("error_description") or code),
        remedy=_REMEDIES.get(code, CLIENTS_AFFAIR),
    )


async def asked_by(request: Request, refusal: Refusal, named: Callable[[str], Awaitable[str]]) -> Refusal:
    """Return `refusal` with the client and the address of its request, as far as they are not in it.

    Args:
        request: what was refused.
        refusal: why.
        named: returns the name of the client of an id, or the id.
    """
    client = refusal.client or await _client_of(request, named)
    return replace(refusal, client=client, address=address_of(request))


async def _client_of(request: Request, named: Callable[[str], Awaitable[str]]) -> str:
    """Return what the client calls itself. What it sent was read and bounded before."""
    with suppress(ValueError, RuntimeError):
        if request.url.path == _REGISTER:
            metadata = await request.json()
            if isinstance(metadata, dict):
                uris = metadata.get("redirect_uris")
                return str(metadata.get("client_name") or (uris[0] if isinstance(uris, list) and uris else ""))
            return ""
        if request.method != "POST":
            return await named(request.query_params.get("client_id", ""))
        # Uploads are never parsed: parts of one would become files here.
        if request.headers.get("content-type", "").startswith(FORM):
            return await named(str((await request.form()).get("client_id", "")))
    return ""
