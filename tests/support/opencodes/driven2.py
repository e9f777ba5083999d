"""OpenCode 2 as a person has it: the managed service, behind the guard of the real launcher, which registers it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

import httpx

from support.chat.plain_http import NO_TLS
from support.opencodes.driven import JSON, NAME, Driven
from support.opencodes.headless import Headless
from support.opencodes.opencode2 import Service2
from support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from support.opencodes.opencode import OpenCodeHome


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
            answer = http.post(route, content=json.dumps(body or {}), headers=JSON).raise_for_status()
        return answer.json() if answer.content else None
