"""What clients send that cannot be installed here: recorded shapes of their requests, each with its source.

None of this is a client. It is what others saw on the wire or what the client's own source says, with the fields and
the order that those have. Where one differs from the real thing, the real thing is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recorded:
    """One client.

    Args:
        name: its name in `clients.known`.
        registration: the body of its `POST /register`.
        asks: the `redirect_uri` of its request to `/authorize`.
        source: where this is said.
    """

    name: str
    registration: dict[str, Any]
    asks: str
    source: str


VSCODE = Recorded(
    "vscode",
    {
        "client_name": "Visual Studio Code",
        "client_uri": "https://code.visualstudio.com",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "redirect_uris": [
            "https://insiders.vscode.dev/redirect",
            "https://vscode.dev/redirect",
            "http://127.0.0.1/",
            "http://127.0.0.1:33418/",
        ],
        "scope": "observe approve drive",
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    },
    # Any port if 33418 is taken.
    "http://127.0.0.1:59656/",
    "microsoft/vscode src/vs/base/common/oauth.ts (fetchDynamicRegistration); microsoft/vscode#278512",
)
VSCODE_OF_THE_WEB = Recorded(
    "vscode",
    # Older versions wrote the loopback addresses without a slash.
    VSCODE.registration
    | {
        "redirect_uris": [
            "https://insiders.vscode.dev/redirect",
            "https://vscode.dev/redirect",
            "http://127.0.0.1",
            "http://127.0.0.1:33418",
        ]
    },
    "https://vscode.dev/redirect",
    "contextstream/mcp-server#57; microsoft/vscode#252892",
)
CURSOR = Recorded(
    "cursor",
    {
        "client_name": "Cursor",
        "redirect_uris": [
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "https://www.cursor.com/agents/mcp/oauth/callback",
            "http://localhost:8787/callback",
        ],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    },
    "cursor://anysphere.cursor-mcp/oauth/callback",
    "erp-mafia/accounted#2225; better-auth/better-auth#10956; makeplane/plane-mcp-server#159",
)
CHATGPT = Recorded(
    "chatgpt",
    {
        "client_name": "ChatGPT",
        "redirect_uris": ["https://chatgpt.com/connector/oauth/OUbdUMlL15Ct"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    },
    "https://chatgpt.com/connector/oauth/OUbdUMlL15Ct",
    "BasedHardware/omi#8824; kunickiaj/codemem#1286; danielealbano/android-remote-control-mcp#166",
)
CHATGPT_BEFORE = Recorded(
    "chatgpt",
    CHATGPT.registration | {"redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect"]},
    "https://chatgpt.com/connector_platform_oauth_redirect",
    "kunickiaj/codemem#1286; gitroomhq/postiz-app#2092",
)
LIBRECHAT = Recorded(
    "librechat@chat.example.org",
    {
        "client_name": "LibreChat MCP Client",
        "redirect_uris": ["https://chat.example.org/api/mcp/relay/oauth/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "scope": "observe approve drive",
    },
    "https://chat.example.org/api/mcp/relay/oauth/callback",
    "danny-avila/LibreChat packages/api/src/mcp/oauth/handler.ts; LibreChat-AI/librechat.ai#388",
)
OPEN_WEBUI = Recorded(
    "open-webui@ai.example.org",
    {
        "client_name": "Open WebUI",
        "redirect_uris": ["https://ai.example.org/oauth/clients/mcp:relay/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "scope": "observe approve drive",
    },
    "https://ai.example.org/oauth/clients/mcp:relay/callback",
    "open-webui/open-webui backend/open_webui/utils/oauth.py (…_with_dynamic_client_registration)",
)
CODEX = Recorded(
    "codex",
    {
        "client_name": "Codex",
        "redirect_uris": ["http://127.0.0.1:57585/callback/kQ3x-7Yp_b1A"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    },
    "http://127.0.0.1:57585/callback/kQ3x-7Yp_b1A",
    "openai/codex#30460 (the last segment is made from the server's address)",
)
GOOSE = Recorded(
    "goose",
    {
        "client_name": "goose",
        "redirect_uris": ["http://127.0.0.1:8456/oauth_callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    },
    "http://127.0.0.1:8456/oauth_callback",
    "aaif-goose/goose#9209",
)
CLIENTS = (VSCODE, VSCODE_OF_THE_WEB, CURSOR, CHATGPT, CHATGPT_BEFORE, LIBRECHAT, OPEN_WEBUI, CODEX, GOOSE)
