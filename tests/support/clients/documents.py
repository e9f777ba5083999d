"""Client-id documents of MCP clients, as their hosts serve them.

None of these hosts can be reached from where tests run, so these are copies. Fetched by others and quoted in public:

- claude.ai/oauth/claude-code-client-metadata: anthropics/claude-code#37747, #64705; openstatusHQ/openstatus#2733
- claude.ai/oauth/mcp-oauth-client-metadata: anthropics/claude-ai-mcp#518
- chatgpt.com/oauth/client.json: django-oauth/django-oauth-toolkit#1845, #1857
- chatgpt.com/oauth/<id>/client.json: Altinity/altinity-mcp#118; cloudflare/workers-oauth-provider#293
- chatgpt.com/oauth/codex/client.json: named by Codex 0.171 itself, which says its address and method; loopback
- opencode.ai/oauth/opencode/client.json: anomalyco/opencode#47737
- vscode.dev/oauth/client-metadata.json: microsoft/vscode#298300
- goose-docs.ai/oauth/client-metadata.json: aaif-goose/goose#8550
"""

from __future__ import annotations

from typing import Any

_PUBLIC = {
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
}

CLAUDE_CODE = "https://claude.ai/oauth/claude-code-client-metadata"
CODEX = "https://chatgpt.com/oauth/codex/client.json"
OPENCODE = "https://opencode.ai/oauth/opencode/client.json"

OF_PROGRAMS: dict[str, dict[str, Any]] = {
    CLAUDE_CODE: {
        "client_id": CLAUDE_CODE,
        "client_name": "Claude Code",
        "client_uri": "https://claude.ai",
        "redirect_uris": ["http://localhost/callback", "http://127.0.0.1/callback"],
        **_PUBLIC,
    },
    CODEX: {
        "client_id": CODEX,
        "client_name": "Codex",
        "redirect_uris": ["http://127.0.0.1/callback", "http://localhost/callback"],
        **_PUBLIC,
    },
    OPENCODE: {
        "client_id": OPENCODE,
        "client_name": "opencode",
        "client_uri": "https://opencode.ai",
        "logo_uri": "https://opencode.ai/web-app-manifest-512x512.png",
        "application_type": "native",
        "redirect_uris": ["http://127.0.0.1/callback", "http://localhost/callback"],
        "token_endpoint_auth_methods_supported": ["none"],
        **_PUBLIC,
    },
}
"""By client id: those of programs on a person's own machine."""
