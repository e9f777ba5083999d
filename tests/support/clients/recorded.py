"""What clients that cannot be run here ask for, as it was seen and told in public.

Each shape says where it is from. Hosts `*.example` stand for those of people who run such a client themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_BOTH = ["authorization_code", "refresh_token"]


@dataclass(frozen=True)
class Shape:
    """One client's way of asking."""

    name: str
    source: str
    metadata: dict[str, Any]
    """What it registers, or its document; `client_id` is in it if it has one."""
    redirect_uri: str
    """The one that it asks to be answered at."""
    scope: str | None = "observe approve drive"
    """What it asks for: as a rule all that the resource's metadata names."""
    signs: bool = False
    """It proves itself by assertions that it signs, although `none` is offered."""
    user_agent: str = "python-httpx"

    @property
    def document(self) -> str | None:
        """The address of its document."""
        return self.metadata.get("client_id")


CHATGPT_KEYS = "https://chatgpt.com/oauth/jwks.json"
_CHATGPT = {
    "client_uri": "https://chatgpt.com/",
    "token_endpoint_auth_method": "private_key_jwt",
    "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
    "grant_types": _BOTH,
    "response_types": ["code"],
    "client_name": "ChatGPT",
    "logo_uri": "https://persistent.oaistatic.com/sonic/misc/openai-logo.png",
    "token_endpoint_auth_signing_alg": "RS256",
    "jwks_uri": CHATGPT_KEYS,
}
_CHATGPT_STABLE = {
    "client_id": "https://chatgpt.com/oauth/client.json",
    "redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect"],
    **_CHATGPT,
}
_CHATGPT_CONNECTOR = {
    "client_id": "https://chatgpt.com/oauth/IbUR3zxyNQ16/client.json",
    "redirect_uris": ["https://chatgpt.com/connector/oauth/IbUR3zxyNQ16"],
    **_CHATGPT,
}
_VSCODE = {
    "client_name": "Visual Studio Code",
    "grant_types": [*_BOTH, "urn:ietf:params:oauth:grant-type:device_code"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
    "application_type": "native",
}

SHAPES = [
    Shape(
        "Claude, by its document",
        "anthropics/claude-ai-mcp#518 and #546",
        {
            "client_id": "https://claude.ai/oauth/mcp-oauth-client-metadata",
            "client_name": "Claude",
            "client_uri": "https://claude.ai",
            "redirect_uris": ["https://claude.ai/api/mcp/auth_callback"],
            "grant_types": [*_BOTH, "urn:ietf:params:oauth:grant-type:jwt-bearer"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        },
        "https://claude.ai/api/mcp/auth_callback",
        user_agent="Claude-User",
    ),
    Shape(
        "Claude, registering",
        "anthropics/claude-ai-mcp#200 and #228",
        {
            "client_name": "Claude",
            "redirect_uris": ["https://claude.ai/api/mcp/auth_callback"],
            "grant_types": _BOTH,
            "response_types": ["code"],
            "token_endpoint_auth_method": "client_secret_post",
            "scope": "observe approve drive",
        },
        "https://claude.ai/api/mcp/auth_callback",
        user_agent="Claude-User",
    ),
    Shape(
        "Claude at its other domain",
        "anthropics/claude-ai-mcp#518",
        {
            "client_name": "Claude",
            "redirect_uris": ["https://claude.com/api/mcp/auth_callback"],
            "grant_types": _BOTH,
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        },
        "https://claude.com/api/mcp/auth_callback",
        user_agent="Claude-User",
    ),
    Shape(
        "ChatGPT, by its document",
        "django-oauth/django-oauth-toolkit#1845 and #1857",
        _CHATGPT_STABLE,
        "https://chatgpt.com/connector_platform_oauth_redirect",
    ),
    Shape(
        "ChatGPT, by its document, signing",
        "engram-app/Engram#1633 and its pull request #1637",
        _CHATGPT_STABLE,
        "https://chatgpt.com/connector_platform_oauth_redirect",
        signs=True,
    ),
    Shape(
        "ChatGPT, by a connector's document",
        "cloudflare/workers-oauth-provider#293; Altinity/altinity-mcp#118",
        _CHATGPT_CONNECTOR,
        "https://chatgpt.com/connector/oauth/IbUR3zxyNQ16",
    ),
    Shape(
        "ChatGPT, by a connector's document, signing",
        "Altinity/altinity-mcp#118",
        _CHATGPT_CONNECTOR,
        "https://chatgpt.com/connector/oauth/IbUR3zxyNQ16",
        signs=True,
    ),
    Shape(
        "ChatGPT, registering a connector",
        "BasedHardware/omi#8824",
        {
            "client_name": "ChatGPT",
            "redirect_uris": ["https://chatgpt.com/connector/oauth/kDmjx77UnKOM"],
            "grant_types": _BOTH,
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        },
        "https://chatgpt.com/connector/oauth/kDmjx77UnKOM",
    ),
    Shape(
        "VS Code, by its document",
        "microsoft/vscode#298300",
        {
            "client_id": "https://vscode.dev/oauth/client-metadata.json",
            "client_uri": "https://vscode.dev/product",
            "logo_uri": "https://code.visualstudio.com/assets/branding/code-stable.png",
            "redirect_uris": ["http://127.0.0.1:33418/", "https://vscode.dev/redirect"],
            **_VSCODE,
        },
        "http://127.0.0.1:33418/",
        user_agent="node",
    ),
    Shape(
        "VS Code, registering",
        "microsoft/vscode#270811; src/vs/base/common/oauth.ts there",
        {
            "client_uri": "https://code.visualstudio.com",
            "redirect_uris": [
                "https://insiders.vscode.dev/redirect",
                "https://vscode.dev/redirect",
                "http://127.0.0.1/",
                "http://127.0.0.1:33418/",
            ],
            **_VSCODE,
        },
        "http://127.0.0.1:33418/",
        user_agent="node",
    ),
    Shape(
        "VS Code in a browser, registering",
        "microsoft/vscode#270811",
        {
            "client_uri": "https://code.visualstudio.com",
            "redirect_uris": ["https://vscode.dev/redirect", "http://127.0.0.1:33418/"],
            **_VSCODE,
        },
        "https://vscode.dev/redirect",
        user_agent="node",
    ),
    Shape(
        "Cursor, by its own scheme",
        "makeplane/plane-mcp-server#159 and #165",
        {
            "client_name": "Cursor",
            "redirect_uris": ["cursor://anysphere.cursor-mcp/oauth/callback"],
            "grant_types": _BOTH,
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        },
        "cursor://anysphere.cursor-mcp/oauth/callback",
        user_agent="node",
    ),
    Shape(
        "Cursor, with its three addresses",
        "erp-mafia/accounted#2225",
        {
            "client_name": "Cursor",
            "redirect_uris": [
                "cursor://anysphere.cursor-mcp/oauth/callback",
                "https://www.cursor.com/agents/mcp/oauth/callback",
                "http://localhost:8787/callback",
            ],
            "grant_types": _BOTH,
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        },
        "https://www.cursor.com/agents/mcp/oauth/callback",
        user_agent="node",
    ),
    Shape(
        "LibreChat",
        "LibreChat-AI/librechat.ai#388",
        {
            "client_name": "LibreChat MCP Client",
            "redirect_uris": ["https://chat.example/api/mcp/relay/oauth/callback"],
            "grant_types": _BOTH,
            "response_types": ["code"],
            "token_endpoint_auth_method": "client_secret_basic",
        },
        "https://chat.example/api/mcp/relay/oauth/callback",
        user_agent="node",
    ),
    Shape(
        "Open WebUI",
        "open-webui/open-webui: get_oauth_client_info_with_dynamic_client_registration of its utils/oauth.py",
        {
            "client_name": "Open WebUI",
            "redirect_uris": ["https://ai.example/oauth/clients/mcp:relay/callback"],
            "grant_types": _BOTH,
            "response_types": ["code"],
        },
        "https://ai.example/oauth/clients/mcp:relay/callback",
    ),
    Shape(
        "goose, by its document",
        "aaif-goose/goose#8550, #9209 and #10727",
        {
            "client_id": "https://goose-docs.ai/oauth/client-metadata.json",
            "client_name": "Goose",
            "logo_uri": "https://goose-docs.ai/img/logo_light.png",
            "redirect_uris": ["http://127.0.0.1/oauth_callback", "http://localhost/oauth_callback"],
            "grant_types": _BOTH,
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        },
        "http://127.0.0.1:45321/oauth_callback",
        scope=None,
        user_agent="goose",
    ),
    Shape(
        "goose, registering",
        "aaif-goose/goose#9670",
        {
            "client_name": "goose",
            "redirect_uris": ["http://127.0.0.1:45321/oauth_callback"],
            "grant_types": _BOTH,
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        },
        "http://127.0.0.1:45321/oauth_callback",
        scope=None,
        user_agent="goose",
    ),
]

OF_CHATS: dict[str, dict[str, Any]] = {shape.document: shape.metadata for shape in SHAPES if shape.document}
"""The documents, by client id."""
