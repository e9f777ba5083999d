"""The list of known clients: what is in it, how its names are read, and that no address slips past a pattern."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from opencode_gateway.oauth.known_clients import (
    ENTRIES,
    Known,
    KnownClient,
    hosts_document,
    known_client,
    known_clients,
    owners_of,
)

CHATGPT = Known("chatgpt")
PREFIX = "https://chatgpt.com/connector/oauth/"


def test_claude_and_chatgpt_alone_are_on_by_default() -> None:
    assert [name for name, entry in ENTRIES.items() if entry.default] == ["claude", "chatgpt"]


def test_the_list_has_the_clients_that_people_have() -> None:
    assert set(ENTRIES) == {
        "claude",
        "chatgpt",
        "claude-code",
        "codex",
        "opencode",
        "vscode",
        "cursor",
        "goose",
        "librechat",
        "open-webui",
        "inspector",
        "mcp-remote",
    }


@pytest.mark.parametrize("name", ENTRIES)
def test_each_client_has_addresses_and_a_source(name: str) -> None:
    entry = ENTRIES[name]

    assert entry.https or entry.private or entry.loopback or entry.own_host
    assert "://" in entry.source or "/" in entry.source


def test_the_page_names_each_client() -> None:
    page = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()

    named = re.findall(
        r"`([a-z-]+)(?:@[a-z.]+)?` \|", page.partition("### Which clients get in")[2].partition("###")[0]
    )

    assert sorted(set(named) & set(ENTRIES)) == sorted(ENTRIES)


@pytest.mark.parametrize(
    "wrong",
    [
        {"https": ["http://chat.example.org/callback"]},
        {"https": ["https://*.example.org/callback"]},
        {"https": ["https://chat.example.org/x{id}"]},
        {"https": ["https://chat.example.org:8443/callback"]},
        {"https": ["https://chat.example.org/a/../callback"]},
        {"https": ["https://user@chat.example.org/callback"]},
        {"https": ["https://chat.example.org/callback?x=1"]},
        {"https": ["https://chat.example.org/call*"]},
        {"loopback": ["callback"]},
        {"loopback": ["/callback/*"]},
        {"loopback": ["/a/../b"]},
        {"own_host": ["//evil.example/"]},
        {"private": ["javascript://x"]},
        {"private": ["https://chat.example.org/"]},
        {"document_hosts": ["*.example.org"]},
        {"origins": ["*"]},
        {"surprise": 1},
        {"source": ""},
    ],
)
def test_an_entry_that_is_not_exact_is_refused(wrong: dict[str, object]) -> None:
    assert KnownClient.model_validate({"title": "Chat", "source": "somewhere"}).title == "Chat"

    with pytest.raises(ValidationError):
        KnownClient.model_validate({"title": "Chat", "source": "somewhere", **wrong})


# Names


@pytest.mark.parametrize("text", ["vscode", "librechat@chat.example.org", "open-webui@localhost:3000"])
def test_a_name_is_read_as_it_is_written(text: str) -> None:
    assert str(known_client(text)) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("vs-code", "the nearest are vscode"),
        ("Claude", "the nearest are claude"),
        ("*", "there are claude, chatgpt"),
        ("", "there are claude, chatgpt"),
        ("claude@chat.example.org", "Claude has no host of its own: write claude"),
        ("librechat", "write librechat@HOST"),
        ("librechat@", "write librechat@HOST"),
        ("librechat@*", "write librechat@HOST"),
        ("librechat@https://chat.example.org", "write librechat@HOST"),
        ("librechat@chat.example.org/x", "write librechat@HOST"),
        ("librechat@a@b", "write librechat@HOST"),
        ("librechat@-x.org", "write librechat@HOST"),
        ("librechat@chat.example.org\n", "write librechat@HOST"),
    ],
)
def test_a_name_that_is_not_known_is_answered_with_what_to_write(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        known_client(text)


def test_a_list_that_was_kept_loses_names_that_are_no_longer_known() -> None:
    assert known_clients("vscode forgotten librechat librechat@a.example.org") == [
        Known("vscode"),
        Known("librechat", "a.example.org"),
    ]


# Addresses


@pytest.mark.parametrize(
    ("known", "uri"),
    [
        ("chatgpt", f"{PREFIX}OUbdUMlL15Ct"),
        ("chatgpt", f"{PREFIX}a-b_c"),
        ("codex", "http://127.0.0.1:5000/callback"),
        ("codex", "http://127.0.0.1/callback/kQ3x-7Yp_b1A"),
        ("claude-code", "http://localhost:3118/callback"),
        ("claude-code", "http://[::1]:3118/callback"),
        ("vscode", "http://127.0.0.1:33418"),
        ("vscode", "http://127.0.0.1:33418/"),
        ("cursor", "cursor://anysphere.cursor-mcp/oauth/callback"),
        ("librechat@chat.example.org", "https://chat.example.org/api/mcp/relay/oauth/callback"),
        ("librechat@localhost:3080", "http://localhost:3080/api/mcp/relay/oauth/callback"),
        ("open-webui@ai.example.org", "https://ai.example.org/oauth/clients/mcp:relay/callback"),
    ],
)
def test_a_client_has_its_addresses(known: str, uri: str) -> None:
    assert known_client(known).has(uri)


@pytest.mark.parametrize(
    "uri",
    [
        PREFIX,
        PREFIX.removesuffix("/"),
        f"{PREFIX}a/",
        f"{PREFIX}a/b",
        f"{PREFIX}../x",
        f"{PREFIX}..",
        f"{PREFIX}.",
        f"{PREFIX}%2e%2e",
        f"{PREFIX}a%2fb",
        f"{PREFIX}a\\b",
        f"{PREFIX}\\..\\x",
        f"{PREFIX}a?x=1",
        f"{PREFIX}a?",
        f"{PREFIX}a#x",
        f"{PREFIX}a#",
        f"{PREFIX}a;b",
        f"{PREFIX}a b",
        f"{PREFIX}a\n",
        f"{PREFIX}\u0430",
        f"{PREFIX}a\u200b",
        f"{PREFIX}{'a' * 129}",
        f"{PREFIX}a@evil.example",
        "http://chatgpt.com/connector/oauth/a",
        "HTTPS://chatgpt.com/connector/oauth/a",
        "https://ChatGPT.com/connector/oauth/a",
        "https://chatgpt.com:443/connector/oauth/a",
        "https://chatgpt.com:8443/connector/oauth/a",
        "https://chatgpt.com./connector/oauth/a",
        "https://user@chatgpt.com/connector/oauth/a",
        "https://chatgpt.com@evil.example/connector/oauth/a",
        "https://chatgpt.com.evil.example/connector/oauth/a",
        "https://evil.example/https://chatgpt.com/connector/oauth/a",
        "https://chatgpt.com\\@evil.example/connector/oauth/a",
        "https:\\\\chatgpt.com/connector/oauth/a",
        "https:/chatgpt.com/connector/oauth/a",
        "//chatgpt.com/connector/oauth/a",
        "https://chatgpt.com//connector/oauth/a",
        "https://chatgpt.com/./connector/oauth/a",
        "https://chatgpt.com/connector/oauth2/a",
        "https://chatgpt.com/Connector/oauth/a",
        " https://chatgpt.com/connector/oauth/a",
    ],
)
def test_what_only_looks_like_a_connector_of_chatgpt_is_not(uri: str) -> None:
    assert not CHATGPT.has(uri)


@pytest.mark.parametrize(
    ("known", "uri"),
    [
        ("claude-code", "http://127.0.0.1.evil.example/callback"),
        ("claude-code", "http://127.0.0.1:80@evil.example/callback"),
        ("claude-code", "http://127.0.0.1:5000/callback/x"),
        ("claude-code", "http://127.0.0.1:5000/callback?x"),
        ("claude-code", "https://127.0.0.1:5000/callback"),
        ("claude-code", "http://127.0.0.1:500000/callback"),
        ("claude-code", "http://0.0.0.0:5000/callback"),
        ("vscode", "http://127.0.0.1:33418//"),
        ("vscode", "http://127.0.0.1:33418?x"),
        ("vscode", "https://vscode.dev/redirect/x"),
        ("cursor", "cursor://anysphere.cursor-mcp/oauth/callback/x"),
        ("cursor", "cursor://evil/oauth/callback"),
        ("cursor", "CURSOR://anysphere.cursor-mcp/oauth/callback"),
        ("librechat@chat.example.org", "https://evil.example/api/mcp/relay/oauth/callback"),
        ("librechat@chat.example.org", "http://chat.example.org/api/mcp/relay/oauth/callback"),
        ("librechat@chat.example.org", "https://chat-example.org/api/mcp/relay/oauth/callback"),
        ("librechat@chat.example.org", "https://chat.example.org/api/mcp/a/b/oauth/callback"),
        ("librechat@chat.example.org", "https://chat.example.org/api/mcp/../oauth/callback"),
        ("librechat@chat.example.org", "https://chat.example.org:8443/api/mcp/relay/oauth/callback"),
    ],
)
def test_a_client_has_no_other_addresses(known: str, uri: str) -> None:
    assert not known_client(known).has(uri)


@given(st.text(max_size=40) | st.text("./\\%2eE2fF?#@:;a-_~ \n", max_size=20))
@example("..")
@example("a\n")
def test_whatever_follows_the_prefix_it_is_one_plain_segment_or_nothing(tail: str) -> None:
    taken = CHATGPT.has(PREFIX + tail)

    assert taken == (re.fullmatch(r"[A-Za-z0-9_~:-]{1,128}", tail) is not None)


@given(
    st.sampled_from(["https", "http", "HTTPS", "cursor", ""]),
    st.sampled_from(["chatgpt.com", "evil.example", "claude.ai", "127.0.0.1", "localhost", "[::1]", "vscode.dev"]),
    st.text(".:@\\/ \t\n0-9abc%?#[]", max_size=8),
    st.sampled_from(["connector/oauth/a", "callback", "redirect", "", "api/mcp/a/oauth/callback"]),
)
def test_nothing_put_between_host_and_path_makes_another_host_a_known_one(
    scheme: str, host: str, between: str, path: str
) -> None:
    uri = f"{scheme}://{host}{between}{path}"

    for known in map(Known, [name for name, entry in ENTRIES.items() if not entry.own_host]):
        if known.has(uri):
            assert re.fullmatch(r"/|(:[0-9]{1,5})?/?", between), uri
            assert host != "evil.example"


@given(
    st.text(max_size=80) | st.from_regex(r"https?://[a-z.]{1,9}/[a-z/]{0,30}", fullmatch=True), st.text(max_size=20)
)
def test_whatever_is_asked_for_its_owners_are_those_that_have_it(uri: str, name: str) -> None:
    assert all(owner.has(uri) for owner in owners_of(uri, name))


# Whose an address is


@pytest.mark.parametrize(
    ("uri", "called", "owners"),
    [
        ("https://vscode.dev/redirect", "", ["vscode"]),
        ("http://127.0.0.1:1/callback", "Claude Code (relay)", ["claude-code"]),
        ("http://127.0.0.1:1/callback", "Codex", ["codex"]),
        ("http://127.0.0.1:1/callback", "", ["claude-code", "codex", "opencode", "cursor"]),
        ("http://127.0.0.1:1/oauth/callback", "MCP CLI Proxy", ["mcp-remote"]),
        ("https://a.example.org/api/mcp/relay/oauth/callback", "", ["librechat@a.example.org"]),
        ("https://evil.example/callback", "Claude", []),
    ],
)
def test_an_address_tells_whose_it_is_and_the_name_which_of_them(uri: str, called: str, owners: list[str]) -> None:
    assert [str(owner) for owner in owners_of(uri, called)] == owners


def test_a_document_tells_whose_it_may_be() -> None:
    assert [str(owner) for owner in hosts_document("vscode.dev")] == ["vscode"]
    assert [str(owner) for owner in hosts_document("claude.ai")] == ["claude", "claude-code"]
    assert hosts_document("evil.example") == []
