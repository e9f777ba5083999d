"""Coding agents and the MCP Inspector: clients that are commands, each run of which is a process of its own.

The agents list and call tools when their model wants them to: here a model that is told what to call.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, ClassVar

from support.clients import documents, installed
from support.clients.client import Called, RealClient
from support.clients.desktop import PATIENCE, ClientFailed
from support.opencodes.fake_models import CallingModel
from support.opencodes.opencode import find_opencode
from support.opencodes.opencode2 import find_opencode2
from support.ports import free_port
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

SERVER = "relay"
"""What the gateway is called in the clients' configurations."""
_PROMPT = "Do what you were told."


class Inspector(RealClient):
    """The MCP Inspector's command line.

    Its `--relogin` forgets the tokens and means to revoke them, but looks for the metadata where this version does
    not keep them, and so tells nobody.
    """

    name = "MCP Inspector"
    shows_progress = False
    logs_out = True

    def connect(self) -> None:
        self._run("tools/list", person=True)

    def tools(self) -> set[str]:
        return {tool["name"] for tool in self._run("tools/list", "--stored-auth-only")["tools"]}

    def call(self, tool: str, **arguments: Any) -> Called:
        given = json.dumps(arguments)
        result = self._run("tools/call", "--stored-auth-only", "--tool-name", tool, "--tool-args-json", given)
        return Called(result["content"][0]["text"])

    def is_shut_out(self) -> bool:
        return self._needs_login("--stored-auth-only")

    def log_out(self) -> None:
        assert self._needs_login("--relogin")

    def _needs_login(self, option: str) -> bool:
        try:
            self._run("tools/list", option)
        except ClientFailed as failed:
            return "auth_required" in str(failed)
        return False

    def _run(self, method: str, *options: str, person: bool = False) -> dict[str, Any]:
        command = [*installed.inspector(), "--cli", self.url, "--transport", "http", "--format", "json", "--quiet"]
        env = {"MCP_INSPECTOR_SECRET_STORE": "file", "MCP_AUTO_OPEN_ENABLED": str(person).lower()}
        printed = self.desktop.run([*command, "--method", method, *options], env, person=person)
        result: dict[str, Any] = json.loads(printed)["result"]
        return result


class Agent(RealClient):
    """A coding agent. What it was shown, its model was offered."""

    shows_progress = False
    logs_out = True
    prefix: ClassVar[str]
    """Of the names under which it offers the gateway's tools to its model."""

    def tools(self) -> set[str]:
        with CallingModel() as model:
            self.work(model)
        return {name.removeprefix(self.prefix) for name in model.offered if name.startswith(self.prefix)}

    def call(self, tool: str, **arguments: Any) -> Called:
        with CallingModel(f"{self.prefix}{tool}", arguments) as model:
            self.work(model)
        return Called(model.results[0])

    def is_shut_out(self) -> bool:
        return self.tools() == set()

    def work(self, model: CallingModel) -> None:
        """Give it something to do, with this model."""
        raise NotImplementedError


class ClaudeCode(Agent):
    """Claude Code."""

    name = "Claude Code"
    document = documents.CLAUDE_CODE
    revokes = True
    prefix = f"mcp__{SERVER}__"

    def connect(self) -> None:
        self._run("mcp", "add", "--transport", "http", SERVER, self.url)
        self.desktop.run([installed.claude_code(), "mcp", "login", SERVER], person=True, terminal=True)

    def is_shut_out(self) -> bool:
        return "Needs authentication" in self._run("mcp", "list")

    def log_out(self) -> None:
        self._run("mcp", "logout", SERVER)

    def work(self, model: CallingModel) -> None:
        env = {
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "x",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "ENABLE_TOOL_SEARCH": "false",
        }
        self._run("-p", _PROMPT, "--allowedTools", f"{self.prefix}reply", env=env)

    def _run(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        return self.desktop.run([installed.claude_code(), *arguments], env)


class Codex(Agent):
    """Codex. Its `mcp logout` forgets, and tells nobody."""

    name = "Codex"
    document = documents.CODEX
    prefix = f"mcp__{SERVER}"

    def connect(self) -> None:
        self._configure("http://127.0.0.1:9")
        self._run("mcp", "login", SERVER, person=True)

    def log_out(self) -> None:
        self._run("mcp", "logout", SERVER)

    def work(self, model: CallingModel) -> None:
        self._configure(model.url)
        self._run("exec", "--skip-git-repo-check", _PROMPT)

    def _configure(self, model_url: str) -> None:
        directory = self.desktop.home / ".codex"
        directory.mkdir(exist_ok=True)
        (directory / "config.toml").write_text(
            f"""
model = "fake"
model_provider = "fake"
approval_policy = "never"
mcp_oauth_credentials_store = "file"
[model_providers.fake]
name = "Fake"
base_url = "{model_url}/v1"
wire_api = "responses"
[mcp_servers.{SERVER}]
url = "{self.url}"
[mcp_servers.{SERVER}.tools.reply]
approval_mode = "approve"
"""
        )

    def _run(self, *arguments: str, person: bool = False) -> None:
        self.desktop.run([installed.codex(), *arguments], person=person)


class OpenCode1(Agent):
    """OpenCode 1. Its `mcp logout` asks on a screen which one, and is left out."""

    name = "OpenCode"
    logs_out = False
    prefix = f"{SERVER}_"
    _ENVIRONMENT: ClassVar = {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}

    def connect(self) -> None:
        self._configure("http://127.0.0.1:9")
        self._run("mcp", "auth", SERVER, person=True)

    def is_shut_out(self) -> bool:
        return "needs authentication" in self._run("mcp", "list")

    def is_let_in(self) -> bool:
        return f"{SERVER} \x1b[90mconnected" in self._run("mcp", "list")

    def work(self, model: CallingModel) -> None:
        self._configure(model.url)
        self._run("run", _PROMPT)

    def _configure(self, model_url: str) -> None:
        options = {"baseURL": f"{model_url}/v1", "apiKey": "x"}
        model = {"name": "fake", "tool_call": True, "limit": {"context": 200_000, "output": 8_000}}
        provider = {"npm": "@ai-sdk/openai-compatible", "name": "Fake", "options": options, "models": {"fake": model}}
        configuration = {
            "model": "fake/fake",
            "small_model": "fake/fake",
            "provider": {"fake": provider},
            "mcp": {SERVER: {"type": "remote", "url": self.url, "enabled": True}},
        }
        (self.desktop.cwd / "opencode.json").write_text(json.dumps(configuration))

    def _run(self, *arguments: str, person: bool = False) -> str:
        return self.desktop.run([self._binary(), *arguments], self._ENVIRONMENT, person=person)

    def _binary(self) -> Path:
        return find_opencode()


class OpenCode2(OpenCode1):
    """OpenCode 2, whose service does the work and lives on between commands.

    It opens no browser. What it is shown its model reads in a catalog, and calls by code.
    Its `mcp logout` forgets, and tells nobody.
    """

    name = "opencode"
    document = documents.OPENCODE
    logs_out = True

    def connect(self) -> None:
        self._run("service", "set", "port", str(free_port()))
        self._configure("http://127.0.0.1:9")
        self._wait_until("needs authentication")
        self.desktop.run([self._binary(), "mcp", "auth", SERVER], self._ENVIRONMENT, person=True, prints=True)

    def tools(self) -> set[str]:
        with CallingModel() as model:
            self.work(model)
        return {name for asked in model.asked for name in re.findall(rf"tools\.{SERVER}\.(\w+)\(", asked)}

    def call(self, tool: str, **arguments: Any) -> Called:
        code = f"return await tools.{SERVER}.{tool}({json.dumps(arguments)})"
        with CallingModel("execute", {"code": code}) as model:
            self.work(model)
        return Called(model.results[0])

    def is_let_in(self) -> bool:
        self._run("service", "restart")
        return self._wait_until(f"{SERVER}  connected")

    def is_shut_out(self) -> bool:
        self._run("service", "restart")
        return self._wait_until("needs authentication")

    def work(self, model: CallingModel) -> None:
        self._configure(model.url)
        assert self.is_let_in()
        self._run("run", _PROMPT)

    def log_out(self) -> None:
        self._run("mcp", "logout", SERVER)

    def _wait_until(self, told: str) -> bool:
        # The service looks at its servers once it has answered, and says that this is to come.
        return eventually(lambda: told in self._run("mcp", "list"), told, within=PATIENCE)

    def _binary(self) -> Path:
        return find_opencode2()
