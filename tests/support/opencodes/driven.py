"""An OpenCode of either generation as an instance of the fleet, and straight looks at it past the server.

`Driven1` is a served OpenCode 1 that is registered by hand, as by a launcher from before there was a guard;
`attached.Attached1` has the guard before it. `driven2.Driven2` is OpenCode 2 as a person has it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

from support.fleet.registry import register, registration
from support.opencodes.opencode import ServedOpenCode
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from support.opencodes.opencode import OpenCodeHome

NAME = "laptop"
"""What it is registered as, where the test does not care."""
SETTLE_SECONDS = 60.0
JSON = {"content-type": "application/json"}


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
        eventually(lambda: not self.running() and not self.asks(), "nothing runs any more", within=SETTLE_SECONDS)

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
        eventually(lambda: len(self.messages(session)) == 2, "it has answered", within=SETTLE_SECONDS)
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
            answer = http.post(route, content=json.dumps(body or {}), headers=JSON, params=params).raise_for_status()
        return answer.json() if answer.content else None
