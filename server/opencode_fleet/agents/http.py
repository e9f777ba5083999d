"""The one way to call an agent over HTTP. It trusts nothing that is answered.

Every answer is bounded in size and in silence, must be JSON, and is validated; redirects are not followed and the
environment's proxies are not used.
"""

from __future__ import annotations

import math
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from opencode_common.text import one_line, quote, quote_name
from opencode_fleet.agents.patience import Patience
from opencode_fleet.agents.streams import parse_json, read_events
from opencode_fleet.errors import (
    AgentGone,
    BadAnswer,
    Forbidden,
    InstanceError,
    NotFound,
    Rejected,
    Unauthorized,
    Unreachable,
    Unresponsive,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from opencode_fleet.transports.base import Endpoint

Model = TypeVar("Model", bound=BaseModel)

SMALL_BODY = 1 << 20
"""Bytes: what anything but messages and asks may answer."""
LARGE_BODY = 8 << 20
"""Bytes: messages carry whole tool outputs, asks whole diffs."""
REQUEST_TIMEOUT = 20.0
"""Seconds of silence in calls other than health checks: the first in a directory loads it, which takes some."""
LARGE_WITHIN = 600.0
"""Seconds that an answer of more than `SMALL_BODY` may take in all: a megabyte on the slowest of lines."""
MAX_CONNECTIONS = 20
_KEEP_SECONDS = 60.0
"""For which an idle connection stays open: through a tunnel a new one costs two round trips."""
_END = object()
MAX_CURSOR = 1_000
"""Characters of what leads to a next page."""
_CURSOR_HEADER = "x-next-cursor"
_TOO_LARGE = "AnswerTooLarge"
"""What a guard calls an answer that it passes on neither thinned nor whole."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The JSON of an answer, and how it came."""

    value: object
    size: int = 0
    """Bytes."""
    seconds: float = 0.0
    """From the request to its last byte."""
    cursor: str = ""
    """What leads to the next page, where a header says so."""


class TooLarge(BadAnswer):
    """The answer was larger than its limit; nothing of it was used."""


class AgentClient:
    """HTTP to the agent of one endpoint, within a running event loop. Close it with `aclose`."""

    def __init__(self, endpoint: Endpoint, health_timeout: float) -> None:
        self.name = endpoint.name
        self.health_timeout = health_timeout
        self._base = endpoint.url
        self._authorization: dict[str, str] = {}
        self._date = ""
        self._patience = Patience()
        self._tls: ssl.SSLContext | bool = endpoint.tls if endpoint.tls is not None else True
        self._http = aiohttp.ClientSession(
            # A connector each: what one agent holds up holds up no other.
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=_KEEP_SECONDS),
            headers={"accept-encoding": "identity", "user-agent": "opencode-relay", **endpoint.headers},
            cookie_jar=aiohttp.DummyCookieJar(),
            # Every use is inside Patience.within, which also bounds a body that drips.
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            auto_decompress=False,
            trust_env=False,
        )

    def authorize(self, user: str | None, password: str = "") -> None:
        """Send these with every request from now on; a `user` of None: what the endpoint brings along."""
        self._authorization = {} if user is None else {"authorization": aiohttp.encode_basic_auth(user, password)}

    @property
    def clock(self) -> float | None:
        """See `Agent.clock`: what the guard or the agent wrote into its last answer's head."""
        try:
            return parsedate_to_datetime(self._date).timestamp()
        except (ValueError, OverflowError):
            return None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        limit: int = SMALL_BODY,
        timeout: float | None = None,  # noqa: ASYNC109 - of silence: what arrives slowly is no failure
    ) -> object:
        """Make one request and return its JSON (None for an empty answer).

        `timeout`: seconds of silence, by default `REQUEST_TIMEOUT`.

        Raises:
            InstanceError: see the tree in `errors`.
        """
        answer = await self.ask(method, path, params=params, body=body, limit=limit, timeout=timeout)
        return answer.value

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        limit: int = SMALL_BODY,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        arrived: Callable[[int], None] | None = None,
    ) -> HttpAnswer:
        """Make one request and return its answer, as `call` does; `arrived` is told of bytes as they come."""
        began = time.monotonic()
        most = LARGE_WITHIN if limit > SMALL_BODY else None
        with self._named_errors():
            async with (
                self._patience.within(REQUEST_TIMEOUT if timeout is None else timeout, most) as came,
                self._http.request(
                    method,
                    self._base + path,
                    params=params,
                    json=body,
                    headers=self._authorization,
                    allow_redirects=False,
                    ssl=self._tls,
                ) as response,
            ):
                self._date = response.headers.get("date", "")
                if response.status == 204:
                    return HttpAnswer(None)

                def heard(size: int) -> None:
                    came(size)
                    if arrived is not None:
                        arrived(size)

                content = await self._read(response, limit, heard)
                self._check(response, "application/json", content)
        seconds = time.monotonic() - began
        try:
            value = parse_json(content)
        except ValueError:
            raise self.bad("no JSON") from None
        cursor = response.headers.get(_CURSOR_HEADER, "")
        return HttpAnswer(value, len(content), seconds, cursor if len(cursor) <= MAX_CURSOR else "")

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str] | None = None, *, silence: float
    ) -> AsyncIterator[AsyncIterator[object]]:
        """Open an event stream; it yields the JSON of each event, `{}` for a comment, None for what was dropped.

        `silence`: seconds without any sign after which it is given up.

        Raises:
            InstanceError: it cannot be opened, or breaks. A stream that ends in good order just ends.
        """
        with self._named_errors():
            async with self._patience.within(self.health_timeout):
                response = await self._http.get(
                    self._base + path,
                    params=params,
                    headers={"accept": "text/event-stream", **self._authorization},
                    allow_redirects=False,
                    ssl=self._tls,
                )
        try:
            self._check(response, "text/event-stream")
            yield self._events(response, silence)
        finally:
            response.close()

    async def _events(self, response: aiohttp.ClientResponse, silence: float) -> AsyncIterator[object]:
        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in response.content.iter_any():
                came(len(chunk))
                yield chunk

        events = read_events(chunks())
        while True:
            with self._named_errors():
                # Around the reading alone: whoever takes the events may need longer.
                async with self._patience.within(silence, math.inf) as came:
                    event = await anext(events, _END)
            if event is _END:
                return
            yield event

    # -- shapes --------------------------------------------------------------------------------------------------

    def one(self, model: type[Model], value: object) -> Model:
        """Return `value` as the model. Raises `BadAnswer`."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            where = error.errors(include_input=False, include_url=False)[0]["loc"]
            raise self.bad(f"a {model.__name__.lower()} of another shape ({one_line(str(where), 60)})") from None

    def many(self, model: type[Model], value: object) -> list[Model]:
        """Validate a list, leaving out what does not fit: one odd entry must not hide the others."""
        if not isinstance(value, list):
            raise self.bad(f"no list of {model.__name__.lower()}s")
        found = []
        for item in value:
            try:
                found.append(model.model_validate(item))
            except ValidationError:
                continue
        return found

    def bad(self, what: str) -> BadAnswer:
        """Return the error of an answer that is none of OpenCode's."""
        return BadAnswer(
            f"what listens at {quote_name(self.name)}'s port answered {what}; is it OpenCode, of a known version?"
        )

    # -- answers -------------------------------------------------------------------------------------------------

    async def _read(self, response: aiohttp.ClientResponse, limit: int, came: Callable[[int], None]) -> bytes:
        chunks: list[bytes] = []
        # What it says of its size saves a slow line from carrying it.
        size, told = 0, response.content_length or 0
        while max(size, told) <= limit:
            chunk = await response.content.readany()
            if not chunk:
                return b"".join(chunks)
            size += len(chunk)
            came(len(chunk))
            chunks.append(chunk)
        response.close()
        raise TooLarge(f"{quote_name(self.name)} answered more than {limit >> 20} MiB; nothing of it was used")

    def _check(self, response: aiohttp.ClientResponse, content_type: str, content: bytes = b"") -> None:
        status = response.status
        name = quote_name(self.name)
        if status == 401:
            raise Unauthorized(
                f"{name} wants a password: put its user name and password into the file that "
                "RELAY_CREDENTIALS_FILE names"
            )
        if status == 403:
            raise Forbidden(f"{name}: {_error_message(content)}")
        if status == 404:
            raise NotFound(f"{name} does not know it (any more)")
        if status == 502 and _error_name(content) == _TOO_LARGE:
            raise TooLarge(f"{name}: {_error_message(content)}")
        if status in {502, 503}:
            raise AgentGone(f"{name}: OpenCode does not answer there: {_error_message(content)}")
        if status >= 400:
            message = f"{name} answered HTTP {status}: {_error_message(content)}"
            raise Rejected(message, status=status, is_silent=not content)
        if status >= 300:
            raise self.bad(f"a redirect ({status}), which is not followed")
        # Paths that OpenCode does not know are answered 200 with its web page.
        found = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if found != content_type:
            raise self.bad("a web page" if found == "text/html" else f"no {content_type}")

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn the library's and time-out errors into ours, naming the instance."""
        name = quote_name(self.name)
        try:
            yield
        except InstanceError:
            raise
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError) as error:
            raise BadAnswer(f"{name} cannot be trusted: its TLS certificate or protocol is wrong") from error
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(f"{name} is not reachable: nothing listens at its port", refused=True) from error
        except aiohttp.InvalidURL as error:
            raise BadAnswer(f"{name} gave an id that cannot be") from error
        except TimeoutError as error:
            raise Unresponsive(f"{name} did not answer in time") from error
        except aiohttp.ClientResponseError as error:
            raise self.bad("no HTTP") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"the connection to {name} broke") from error


def _error_name(content: bytes) -> object:
    try:
        answer: Any = parse_json(content)
    except ValueError:
        return None
    return answer.get("name") if isinstance(answer, dict) else None


def _error_message(content: bytes) -> str:
    """Return the reason that an answer gives, as either generation of OpenCode and the guard write it."""
    try:
        answer: Any = parse_json(content)
        data = answer.get("data")
        message = data["message"] if isinstance(data, dict) else answer["message"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "no reason given"
    return quote(str(message), 300)
