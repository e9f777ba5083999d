"""The two metadata documents, at every address where clients look for them.

| document | looked for at |
|---|---|
| of the resource (RFC 9728) | `/.well-known/oauth-protected-resource/mcp`, and without `/mcp` |
| of the server (RFC 8414) | `/.well-known/oauth-authorization-server`, and with `/mcp` behind it |
| of the server, as OpenID Connect has it | `/.well-known/openid-configuration`, with `/mcp` behind it or before it |

There is one authorization server and one resource here, so all of them say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mcp.shared.auth import ProtectedResourceMetadata
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from opencode_gateway.capabilities import CAPABILITIES
from opencode_gateway.configuration import MCP_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mcp.shared.auth import OAuthMetadata
    from starlette.requests import Request

_RESOURCE: Final = "/.well-known/oauth-protected-resource"
_SERVER: Final = "/.well-known/oauth-authorization-server"
_OPENID: Final = "/.well-known/openid-configuration"
_KEYS: Final = "/.well-known/jwks.json"
_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_HEADERS: Final = {"Cache-Control": "public, max-age=3600"}


def routes(server: OAuthMetadata, resource: str, issuer: str) -> list[Route]:
    """Return the routes of the documents.

    Args:
        server: RFC 8414.
        resource: the URL of MCP.
        issuer: of the tokens for it.
    """
    about_server = server.model_dump(mode="json", exclude_none=True)
    about_resource = ProtectedResourceMetadata.model_validate(
        {"resource": resource, "authorization_servers": [issuer], "scopes_supported": list(CAPABILITIES)}
    ).model_dump(mode="json", exclude_none=True)
    # Parsers of this kind of document demand these fields. No id token is ever issued here, so there is no key, and
    # `openid` is no scope: RS256 is named because it must be.
    as_openid = {
        **about_server,
        "jwks_uri": f"{issuer}{_KEYS}",
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }
    documents = {
        _RESOURCE: about_resource,
        f"{_RESOURCE}{MCP_PATH}": about_resource,
        _SERVER: about_server,
        f"{_SERVER}{MCP_PATH}": about_server,
        _OPENID: as_openid,
        f"{_OPENID}{MCP_PATH}": as_openid,
        f"{MCP_PATH}{_OPENID}": as_openid,
        _KEYS: {"keys": []},
    }
    return [Route(path, _shows(document), methods=_METHODS) for path, document in documents.items()]


def _shows(document: dict[str, Any]) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def show(request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": ", ".join(_METHODS)})
        return JSONResponse(document, headers=_HEADERS)

    return show
