"""A client of one OpenCode's HTTP API that trusts nothing it answers.

Every answer is bounded in size and time, must be JSON, and is validated; redirects are not followed and the
environment's proxies are not used. The API's behaviour is described where it surprises.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from opencode_common.text import one_line, quote, quote_name
from opencode_fleet.errors import (
    BadAnswer,
    InstanceError,
    NotFound,
    Rejected,
    Unauthorized,
    Unreachable,
    Unresponsive,
)
from opencode_fleet.wire import (
    EVENT,
    Event,
    Health,
    Location,
    Message,
    Permission,
    Question,
    Session,
    Status,
    is_id,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opencode_fleet.credentials import Credential
    from opencode_fleet.transports.base import Endpoint

Model = TypeVar("Model", bound=BaseModel)

SMALL_BODY = 1 << 20
"""Bytes: what anything but messages and asks may answer."""
LARGE_BODY = 8 << 20
"""Bytes: messages carry whole tool outputs, asks whole diffs."""
MAX_EVENTS_PER_SECOND = 1000
"""Of one instance; a real one sends some hundred while several agents write."""
COST_OF_A_GAP = 100
"""In events: after one that was dropped the state is fetched anew."""
MAX_EVENT_BYTES = 1 << 20
"""Bytes of one event; a longer one is dropped, and the state fetched anew."""
REQUEST_TIMEOUT = 20.0
"""Seconds for calls other than health checks: the first call in a directory loads it, which takes seconds."""

# Nothing but http is spoken on this machine; one shared context spares each client the loading of certificates.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class OpenCode:
    """The API of one instance. Close it with `aclose`."""

    def __init__(self, endpoint: Endpoint, health_timeout: float) -> None:
        self._name = endpoint.name
        self._health_timeout = health_timeout
        # A client per instance: httpx's pool takes time quadratic in its connections.
        self._http = httpx.AsyncClient(
            base_url=endpoint.url,
            headers={"accept-encoding": "identity"},
            verify=_NO_TLS,
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # noqa: S113 - every use is inside asyncio.timeout, which also bounds a body that drips
            # One stays open: through a tunnel a new connection costs two round trips.
            limits=httpx.Limits(max_connections=20, max_keepalive_connections=1, keepalive_expiry=60),
        )

    def authenticate(self, credential: Credential | None) -> None:
        """Send `credential` with every request from now on."""
        self._http.headers.pop("authorization", None)
        if credential is not None:
            pair = f"{credential.username}:{credential.password.get_secret_value()}".encode()
            self._http.headers["authorization"] = "Basic " + base64.b64encode(pair).decode()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    # -- state ---------------------------------------------------------------------------------------------------

    async def health(self) -> Health:
        """Ask whether it lives, and its version."""
        return self._one(Health, await self._call("GET", "/global/health", timeout=self._health_timeout))

    async def location(self) -> Location:
        """Ask for the directory that it works in; `status`, asks and events are each of one directory."""
        return self._one(Location, await self._call("GET", "/path"))

    async def statuses(self, directory: str) -> dict[str, Status]:
        """Return the sessions that are not idle. Waiting for a person is `busy` too."""
        answer = await self._call("GET", "/session/status", params={"directory": directory})
        if not isinstance(answer, dict):
            raise self._bad("a status list of another shape")
        return {key: self._one(Status, value) for key, value in answer.items() if is_id(key)}

    async def permissions(self, directory: str) -> list[Permission]:
        """Return the permission asks, also those left over from aborted turns."""
        params = {"directory": directory}
        return self._many(Permission, await self._call("GET", "/permission", params=params, limit=LARGE_BODY))

    async def questions(self, directory: str) -> list[Question]:
        """Return the questions, also those left over from aborted turns."""
        params = {"directory": directory}
        return self._many(Question, await self._call("GET", "/question", params=params, limit=LARGE_BODY))

    async def root_sessions(self, directory: str, limit: int) -> list[Session]:
        """Return the newest sessions of `directory` that are no subagent's and not archived, newest first."""
        params = {"directory": directory, "roots": "true", "limit": str(limit)}
        found = self._many(Session, await self._call("GET", "/session", params=params))
        # Without a match the server lists the whole project; a subagent's or an archived one is never ours to drive.
        kept = [s for s in found if s.directory == directory and s.parent_id is None and not s.is_archived]
        return sorted(kept, key=lambda session: session.time.updated, reverse=True)

    async def session(self, session_id: str) -> Session:
        """Return one session."""
        return self._one(Session, await self._call("GET", f"/session/{session_id}"))

    async def messages(self, session_id: str, limit: int) -> list[Message]:
        """Return the newest `limit` messages, oldest first; fewer where they are too large to fetch together."""
        while True:
            try:
                answer = await self._call(
                    "GET", f"/session/{session_id}/message", params={"limit": str(limit)}, limit=LARGE_BODY
                )
            except _TooLarge:
                if limit <= 1:
                    raise
                limit = max(1, limit // 4)
            else:
                return self._many(Message, answer)

    async def message(self, session_id: str, message_id: str) -> Message:
        """Return one message."""
        path = f"/session/{session_id}/message/{message_id}"
        return self._one(Message, await self._call("GET", path, limit=LARGE_BODY))

    # -- acting --------------------------------------------------------------------------------------------------

    async def create_session(self, directory: str) -> Session:
        """Create an empty session in `directory`."""
        answer = await self._call("POST", "/session", params={"directory": directory}, body={})
        return self._one(Session, answer)

    async def prompt(self, session_id: str, message_id: str, part_id: str, text: str) -> None:
        """Post a prompt and return at once. With the same ids again it is the same prompt, not a second one."""
        body = {"messageID": message_id, "parts": [{"id": part_id, "type": "text", "text": text}]}
        await self._call("POST", f"/session/{session_id}/prompt_async", body=body)

    async def abort(self, session_id: str) -> None:
        """Stop what the session runs, its subagents included; the answer is the same when nothing ran."""
        await self._call("POST", f"/session/{session_id}/abort", body={})

    async def reply_permission(self, directory: str, ask_id: str, reply: str, reason: str | None) -> None:
        """Settle a permission ask with `once`, `always` or `reject`."""
        body = {"reply": reply} | ({"message": reason} if reason else {})
        await self._call("POST", f"/permission/{ask_id}/reply", params={"directory": directory}, body=body)

    async def reply_question(self, directory: str, ask_id: str, answers: list[list[str]]) -> None:
        """Answer a question: a list of labels or free texts for each of its questions."""
        params = {"directory": directory}
        await self._call("POST", f"/question/{ask_id}/reply", params=params, body={"answers": answers})

    async def reject_question(self, directory: str, ask_id: str) -> None:
        """Refuse to answer; the turn ends."""
        await self._call("POST", f"/question/{ask_id}/reject", params={"directory": directory}, body={})

    async def show_in_tui(self, session_id: str) -> None:
        """Show the session on the instance's screen; nothing happens where there is no screen."""
        await self._call("POST", "/tui/select-session", body={"sessionID": session_id})

    # -- events --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def events(self, directory: str) -> AsyncIterator[AsyncIterator[Event | None]]:
        """Open the event stream of `directory`; it yields events, and None where one was dropped for its size.

        Raises:
            InstanceError: it cannot be opened, or breaks. A stream that ends in good order just ends.
        """
        request = self._http.build_request("GET", "/event", params={"directory": directory})
        request.headers["accept"] = "text/event-stream"
        with _named_errors(self._name):
            async with asyncio.timeout(self._health_timeout):
                response = await self._http.send(request, stream=True)
        try:
            self._check(response, "text/event-stream")
            yield self._decode(response)
        finally:
            await response.aclose()

    async def _decode(self, response: httpx.Response) -> AsyncIterator[Event | None]:
        pace = _Pace()
        with _named_errors(self._name):
            async for frame in _frames(response.aiter_raw()):
                if frame is None:
                    await pace.step(COST_OF_A_GAP)
                    yield None
                    continue
                # All that is left of the format once the frames are bounded.
                data = b"\n".join(line[5:].strip() for line in frame.splitlines() if line.startswith(b"data:"))
                if not data:
                    continue
                try:
                    event = EVENT.validate_python(parse_json(data))
                except ValueError:
                    event = None
                await pace.step(COST_OF_A_GAP if event is None else 1)
                yield event

    # -- the one way to call ---------------------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        limit: int = SMALL_BODY,
        timeout: float = REQUEST_TIMEOUT,  # noqa: ASYNC109 - one bound for head and body, from the callers' table
    ) -> object:
        """Make one request and return its JSON (None for an empty answer)."""
        with _named_errors(self._name):
            async with (
                asyncio.timeout(timeout),
                self._http.stream(method, path, params=params, json=body) as response,
            ):
                if response.status_code == 204:
                    return None
                content = await self._read(response, limit)
                self._check(response, "application/json", content)
        try:
            return parse_json(content)
        except ValueError:
            raise self._bad("no JSON") from None

    async def _read(self, response: httpx.Response, limit: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > limit:
                raise _TooLarge(
                    f"{quote_name(self._name)} answered more than {limit >> 20} MiB; nothing of it was used"
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _check(self, response: httpx.Response, content_type: str, content: bytes = b"") -> None:
        status = response.status_code
        if status == 401:
            raise Unauthorized(
                f"{quote_name(self._name)} wants a password: put its user name and password into the file that "
                "RELAY_CREDENTIALS_FILE names"
            )
        if status == 404:
            raise NotFound(f"{quote_name(self._name)} does not know it (any more)")
        if status >= 400:
            raise Rejected(f"{quote_name(self._name)} answered HTTP {status}: {_error_message(content)}")
        if status >= 300:
            raise self._bad(f"a redirect ({status}), which is not followed")
        # Paths that OpenCode does not know are answered 200 with its web page.
        found = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if found != content_type:
            raise self._bad("a web page" if found == "text/html" else f"no {content_type}")

    def _bad(self, what: str) -> BadAnswer:
        return BadAnswer(
            f"what listens at {quote_name(self._name)}'s port answered {what}; is it OpenCode, of a known version?"
        )

    def _one(self, model: type[Model], value: object) -> Model:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            where = error.errors(include_input=False, include_url=False)[0]["loc"]
            raise self._bad(f"a {model.__name__.lower()} of another shape ({one_line(str(where), 60)})") from None

    def _many(self, model: type[Model], value: object) -> list[Model]:
        """Validate a list, leaving out what does not fit: one odd entry must not hide the others."""
        if not isinstance(value, list):
            raise self._bad(f"no list of {model.__name__.lower()}s")
        found = []
        for item in value:
            try:
                found.append(model.model_validate(item))
            except ValidationError:
                continue
        return found


class _TooLarge(BadAnswer):
    pass


class _named_errors:  # noqa: N801 - reads as a statement where it is used
    """Turn httpx's and time-out errors into ours, naming the instance."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, InstanceError):
            return
        name = quote_name(self._name)
        if isinstance(error, httpx.InvalidURL):
            raise BadAnswer(f"{name} gave an id that cannot be") from error
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            raise Unresponsive(f"{name} did not answer in time") from error
        if isinstance(error, httpx.ConnectError):
            raise Unreachable(f"{name} is not reachable: nothing listens at its port", refused=True) from error
        if isinstance(error, httpx.HTTPError | httpx.StreamError | OSError):
            raise Unreachable(f"the connection to {name} broke") from error


def parse_json(content: bytes | str) -> object:
    """Parse JSON; a lone surrogate, which JavaScript makes of an emoji cut in two, becomes a question mark.

    Raises:
        ValueError: it is none, or nested too deeply.
    """
    try:
        return cast("object", from_json(content))
    except ValueError:
        try:
            repaired = json.dumps(json.loads(content), ensure_ascii=False)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return cast("object", from_json(repaired.encode(errors="replace")))


def _error_message(content: bytes) -> str:
    try:
        data: Any = parse_json(content)
        message = data["data"]["message"]
    except (ValueError, KeyError, TypeError):
        return "no reason given"
    return quote(str(message), 300)


class _Pace:
    """Slows a stream down to `MAX_EVENTS_PER_SECOND`, so that a flood costs the one who makes it, not the others."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._since = self._clock()
        self._count = 0

    async def step(self, cost: int) -> None:
        """Wait until an event of that cost may be taken."""
        self._count += cost
        if self._count < MAX_EVENTS_PER_SECOND:
            return
        await asyncio.sleep(self._since + 1.0 - self._clock())
        self._since, self._count = self._clock(), 0


async def _frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes | None]:
    """Split an event stream after its blank lines; None is a frame beyond `MAX_EVENT_BYTES`, never held whole."""
    pending = bytearray()
    skipping = False
    async for chunk in chunks:
        # The blank line may be split between two chunks, but need not be sought in what was searched before.
        start = max(0, len(pending) - 1)
        pending += chunk
        while (end := pending.find(b"\n\n", start)) >= 0:
            frame = bytes(pending[: end + 2])
            del pending[: end + 2]
            start = 0
            yield None if skipping or len(frame) > MAX_EVENT_BYTES else frame
            skipping = False
        if len(pending) > MAX_EVENT_BYTES:
            skipping = True
        if skipping:
            del pending[:-1]
