"""An OpenCode of either generation as an instance of the fleet, and straight looks at it past the server.

`Driven1` is a served OpenCode 1 that is registered by hand, as by a launcher from before there was a guard;
`attached.Attached1` has the guard before it. `Driven2` is OpenCode 2 as a person has it: the managed service, behind
the guard of the real launcher, which registers it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

import httpx

from support.headless import Headless
from support.opencode import ServedOpenCode
from support.opencode2 import Service2
from support.plain_http import NO_TLS
from support.registry import register, registration
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from support.opencode import OpenCodeHome

NAME = "laptop"
"""What it is registered as, where the test does not care."""
_SETTLE_SECONDS = 60.0
_JSON = {"content-type": "application/json"}


class Driven(ABC):
    """One OpenCode at work in one directory; a context manager that leaves no process behind."""

    generation: int
    prompt_path: str
    """How the path ends that messages are posted to."""
    shell: str
    """What its tool for commands is called."""
    stopped: str
    """What a turn's problem says when somebody stopped it."""
    always: str
    """What an ask of `echo …` says of `always`."""
    failed: str
    """What comes before the reason of the model's service."""

    def __init__(self, home: OpenCodeHome, directory: Path, *, name: str = NAME) -> None:
        self.home = home
        self.name = name
        self.directory = directory
        self.registry = home.root / "registry"
        """Where it is registered."""

    @abstractmethod
    def __enter__(self) -> Self:
        """Start it, and return when it is registered."""

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""

    @property
    @abstractmethod
    def port(self) -> int:
        """Where whoever drives it reaches it."""

    @abstractmethod
    def register_at(self, registry_dir: Path, name: str, port: int) -> None:
        """Register it once more, by hand: under another name, reached at another port."""

    @abstractmethod
    def kill(self) -> None:
        """Kill it, as a crash would."""

    @abstractmethod
    def revive(self) -> None:
        """Return when it is there again after `kill`, reached and registered as before."""

    @abstractmethod
    def create(self, title: str = "", *, directory: Path | None = None) -> str:
        """Create a session, in another directory if one is given, and return its id."""

    @abstractmethod
    def create_with_model(self, model: str) -> str:
        """Create a session that is with a model of this name, which nobody offers, and return its id."""

    @abstractmethod
    def create_with_agent(self, agent: str) -> str:
        """Create a session that is with an agent of its configuration, and return its id."""

    @abstractmethod
    def running(self) -> list[str]:
        """Return the sessions that run, subagents' too."""

    @abstractmethod
    def asks(self) -> list[str]:
        """Return the ids of all that it waits for."""

    @abstractmethod
    def messages(self, session: str) -> list[tuple[str, str]]:
        """Return role (`user` or `assistant`) and text of the session's messages, oldest first."""

    @abstractmethod
    def children(self, session: str) -> list[str]:
        """Return the sessions of its subagents."""

    @abstractmethod
    def stop(self, session: str) -> None:
        """Stop what runs there, as at the screen."""

    @abstractmethod
    def allow(self, ask: str) -> None:
        """Settle a permission ask with `once`, as at the screen."""

    @abstractmethod
    def post(self, session: str, text: str, **more: object) -> None:
        """Post a message, as at the screen."""

    @abstractmethod
    def delete(self, session: str) -> None:
        """Delete a session."""

    @abstractmethod
    def sessions(self) -> list[str]:
        """Return the sessions of its directory."""

    def prompts(self, session: str) -> list[str]:
        """Return the texts of the user's messages in the session."""
        return [text for role, text in self.messages(session) if role == "user"]

    def forget_sessions(self) -> None:
        """Delete what earlier tests left: a title that comes late makes its session the newest."""
        for session in self.sessions():
            self.delete(session)

    def settle(self) -> None:
        """Stop all that it runs and clear the asks that are left."""
        for session in self.running():
            self.stop(session)
        self._clear_asks()
        eventually(lambda: not self.running() and not self.asks(), "nothing runs any more", within=_SETTLE_SECONDS)

    @abstractmethod
    def _clear_asks(self) -> None:
        """Settle what is left of the asks of turns that ended."""


class Driven1(Driven):
    """OpenCode 1."""

    generation = 1
    prompt_path = "/prompt_async"
    shell = "bash"
    stopped = "MessageAbortedError"
    always = "`always` would also allow, until that OpenCode ends: echo *"
    failed = "APIError: "

    def __init__(self, home: OpenCodeHome, directory: Path, *, name: str = NAME) -> None:
        super().__init__(home, directory, name=name)
        self.served = ServedOpenCode(home, directory)

    def __enter__(self) -> Self:
        self.served.start()
        self.register_at(self.registry, self.name, self.port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.served.stop()

    @property
    def port(self) -> int:
        """See `Driven`."""
        return self.served.port

    def register_at(self, registry_dir: Path, name: str, port: int) -> None:
        """See `Driven`."""
        register(registry_dir, registration(name, port, cwd=str(self.directory)))

    def kill(self) -> None:
        """See `Driven`."""
        self.served.kill()

    def revive(self) -> None:
        """See `Driven`."""
        self.served.start()
        self.register_at(self.registry, self.name, self.port)

    def create(self, title: str = "", *, directory: Path | None = None) -> str:
        """See `Driven`."""
        params = {"directory": str(directory)} if directory else {}
        return str(self._post("/session", {"title": title} if title else {}, params)["id"])

    def create_with_model(self, model: str) -> str:
        """See `Driven`. Its sessions are with a model by the first message that names it."""
        session = self.create()
        self.post(session, "hi", model={"providerID": "fake", "modelID": model})
        return session

    def create_with_agent(self, agent: str) -> str:
        """See `Driven`. Its sessions are with an agent by the first message that names it."""
        session = self.create()
        self.post(session, "hi", agent=agent)
        eventually(lambda: len(self.messages(session)) == 2, "it has answered", within=_SETTLE_SECONDS)
        return session

    def running(self) -> list[str]:
        """See `Driven`."""
        return list(self._get("/session/status"))

    def asks(self) -> list[str]:
        """See `Driven`."""
        return [ask["id"] for route in ("/permission", "/question") for ask in self._get(route)]

    def messages(self, session: str) -> list[tuple[str, str]]:
        """See `Driven`."""
        return [
            (message["info"]["role"], part["text"])
            for message in self._get(f"/session/{session}/message")
            for part in message["parts"]
            if part["type"] == "text"
        ]

    def children(self, session: str) -> list[str]:
        """See `Driven`."""
        return [child["id"] for child in self._get(f"/session/{session}/children")]

    def stop(self, session: str) -> None:
        """See `Driven`."""
        self._post(f"/session/{session}/abort")

    def allow(self, ask: str) -> None:
        """See `Driven`."""
        self._post(f"/permission/{ask}/reply", {"reply": "once"})

    def post(self, session: str, text: str, **more: object) -> None:
        """See `Driven`."""
        self._post(f"/session/{session}/prompt_async", {"parts": [{"type": "text", "text": text}], **more})

    def delete(self, session: str) -> None:
        """See `Driven`."""
        self.stop(session)
        with self.served.client() as http:
            # One of a subagent goes with its parent.
            assert http.delete(f"/session/{session}").status_code in {200, 404}

    def sessions(self) -> list[str]:
        """See `Driven`."""
        return [session["id"] for session in self._get("/session")]

    def _clear_asks(self) -> None:
        for ask in self._get("/permission"):
            self._post(f"/permission/{ask['id']}/reply", {"reply": "reject"})
        for ask in self._get("/question"):
            self._post(f"/question/{ask['id']}/reject")

    def _get(self, route: str) -> Any:
        with self.served.client() as http:
            return http.get(route).raise_for_status().json()

    def _post(self, route: str, body: object = None, params: dict[str, str] | None = None) -> Any:
        with self.served.client() as http:
            answer = http.post(route, content=json.dumps(body or {}), headers=_JSON, params=params).raise_for_status()
        return answer.json() if answer.content else None


class Driven2(Driven):
    """OpenCode 2."""

    generation = 2
    prompt_path = "/prompt"
    shell = "shell"
    stopped = "interrupted"
    always = "`always` is not let through from afar by the owner of that machine"
    failed = "provider.invalid-request: "

    def __init__(self, home: OpenCodeHome, directory: Path, *, name: str = NAME, rights: str = "") -> None:
        super().__init__(home, directory, name=name)
        self.service = Service2(home, started=False)
        self.launcher = Headless(home, directory, self.registry, name, rights=rights)

    def __enter__(self) -> Self:
        self.service.__enter__()
        try:
            self.launcher.start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.launcher.end()
        finally:
            self.service.__exit__(kind, error, trace)

    @property
    def port(self) -> int:
        """See `Driven`."""
        return int(self.launcher.registration()["port"])

    def register_at(self, registry_dir: Path, name: str, port: int) -> None:
        """See `Driven`."""
        self.launcher.register_at(registry_dir, name, port)

    def kill(self) -> None:
        """See `Driven`."""
        self.service.kill()

    def revive(self) -> None:
        """See `Driven`: its launcher does it."""
        eventually(self.service.runs, "the service that the launcher started", within=120)

    def create(self, title: str = "", *, directory: Path | None = None) -> str:
        """See `Driven`."""
        return self._create(directory or self.directory, **({"title": title} if title else {}))

    def create_with_model(self, model: str) -> str:
        """See `Driven`."""
        return self._create(self.directory, model={"providerID": "fake", "id": model})

    def create_with_agent(self, agent: str) -> str:
        """See `Driven`."""
        return self._create(self.directory, agent=agent)

    def _create(self, directory: Path, **fields: object) -> str:
        body = {"location": {"directory": str(directory)}, **fields}
        return str(self._post("/api/session", body)["data"]["id"])

    def through_the_guard(self) -> httpx.Client:
        """Return a client of its guard, which has the key."""
        auth = httpx.BasicAuth("opencode", self.launcher.key().strip())
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", auth=auth, timeout=30, trust_env=False, verify=NO_TLS
        )

    def running(self) -> list[str]:
        """See `Driven`."""
        return list(self._get("/api/session/active"))

    def asks(self) -> list[str]:
        """See `Driven`."""
        return [ask for ask, _ in self._asks("permission")] + [ask for ask, _ in self._asks("form")]

    def messages(self, session: str) -> list[tuple[str, str]]:
        """See `Driven`."""
        found = []
        for message in reversed(self._get(f"/api/session/{session}/message?limit=200")):
            if message["type"] == "user":
                found.append(("user", message["text"]))
            elif message["type"] == "assistant":
                found += [("assistant", part["text"]) for part in message["content"] if part["type"] == "text"]
        return found

    def children(self, session: str) -> list[str]:
        """See `Driven`."""
        return [child["id"] for child in self._get(f"/api/session?parentID={session}")]

    def stop(self, session: str) -> None:
        """See `Driven`."""
        self._post(f"/api/session/{session}/interrupt")

    def allow(self, ask: str) -> None:
        """See `Driven`."""
        session = dict(self._asks("permission"))[ask]
        self._post(f"/api/session/{session}/permission/{ask}/reply", {"decision": "once"})

    def post(self, session: str, text: str, **more: object) -> None:
        """See `Driven`."""
        self._post(f"/api/session/{session}/prompt", {"text": text, **more})

    def delete(self, session: str) -> None:
        """See `Driven`."""
        with self.service.client() as http:
            assert http.delete(f"/api/session/{session}").status_code in {204, 404}

    def sessions(self) -> list[str]:
        """See `Driven`."""
        return [session["id"] for session in self._get(f"/api/session?directory={self.directory}&limit=200")]

    def _clear_asks(self) -> None:
        """Nothing: they end with their turns."""

    def _asks(self, kind: str) -> list[tuple[str, str]]:
        """Return the ids of asks, each with its session."""
        return [(ask["id"], session) for session in self.running() for ask in self._get_asks(session, kind)]

    def _get_asks(self, session: str, kind: str) -> list[dict[str, Any]]:
        return list(self._get(f"/api/session/{session}/{kind}"))

    def _get(self, route: str) -> Any:
        with self.service.client() as http:
            return http.get(route).raise_for_status().json()["data"]

    def _post(self, route: str, body: object = None) -> Any:
        with self.service.client() as http:
            answer = http.post(route, content=json.dumps(body or {}), headers=_JSON).raise_for_status()
        return answer.json() if answer.content else None
