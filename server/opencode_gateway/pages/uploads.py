"""The page on which a person uploads one file for a message, as a chat client cannot bring a picture along.

The server behind the gateway opens the place and hands its link out, to a login that may send. The secret in the link
is all that the page asks for: on a phone the browser is another program than the chat. Whoever else learns of it can
put one file there within ten minutes, which goes nowhere until that login names it in a message. Nothing is ever
served back.
"""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from opencode_common.file_types import MAX_FILE_BYTES, TYPES, BadFile
from opencode_common.uploads import Uploads
from opencode_gateway.audit import AuditEvent
from opencode_gateway.configuration import UPLOAD_PATH
from opencode_gateway.pages.rendering import page, unavailable_page
from opencode_pages.rendering import problem_page

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from pathlib import Path

    from starlette.requests import Request
    from starlette.responses import Response

    from opencode_common.file_types import FileType

_MAX_FORM: Final = MAX_FILE_BYTES + 16 * 1024
"""Bytes of a form: its file, the file's head, and what parts them."""
_FIELDS: Final = 5
"""That a browser of some day may send besides."""
_AT_ONCE: Final = 2
"""Uploads that are read, and so in memory, at the same time."""
_BOUNDARY: Final = re.compile(
    r"""multipart/form-data\s*;\s*boundary=("?)([\w'()+,./:=?-]{1,70})\1""", re.IGNORECASE | re.ASCII
)
"""All that browsers say of a form. A set of characters is not believed: decoding some takes hours of a megabyte."""
_PRUNE_SECONDS: Final = 600.0
_ANEW: Final = "Ask for a new link in your chat."
_TOO_LARGE: Final = (
    f"This file is larger than {MAX_FILE_BYTES // 1_000_000} MB. Choose a smaller one, or a screenshot of it."
)
_NO_FORM: Final = "The gateway did not understand this form. Try again."

_log = logging.getLogger(__name__)


class _Refused(Exception):
    """What was sent is not taken; the message is for the person, who may try again."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _InMemory(MultiPartParser):
    """Keeps a file in memory: the container's own disk is smaller."""

    spool_max_size = _MAX_FORM


class UploadPages:
    """The pages at `/upload/SECRET`.

    Args:
        directory: of the places, shared with the servers that open them.
        public_url: as in the configuration.
        on_event: hears of files that came.
    """

    def __init__(self, directory: Path, public_url: str, on_event: Callable[[AuditEvent], None]) -> None:
        self._uploads = Uploads(directory)
        self._on_event = on_event
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._of_link: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.variables = {"RELAY_UPLOADS_DIR": str(directory), "RELAY_UPLOADS_URL": public_url + UPLOAD_PATH}
        """What a server must know to open places."""

    def routes(self) -> list[Route]:
        """Return the routes."""
        path = f"{UPLOAD_PATH}/{{secret}}"
        return [Route(path, self._show, methods=["GET"]), Route(path, self._take, methods=["POST"])]

    @asynccontextmanager
    async def pruning(self) -> AsyncIterator[None]:
        """Remove what is over, now and from time to time."""
        task = asyncio.create_task(self._prune())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _prune(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._uploads.prune)
            except OSError as error:
                _log.warning("old uploads cannot be removed: %s", error)
            await asyncio.sleep(_PRUNE_SECONDS)

    async def _show(self, request: Request) -> Response:
        try:
            login = self._uploads.login_of(request.path_params["secret"])
        except OSError:
            return self._unusable()
        return _gone() if login is None else _form(login)

    async def _take(self, request: Request) -> Response:
        secret = request.path_params["secret"]
        login = None
        try:
            # Before anything of the body is read: strangers fill no memory.
            login = self._uploads.login_of(secret)
            if login is None:
                return _gone()
            # One at a time, so that who has a link holds up nobody else's.
            async with self._of_link.setdefault(secret, asyncio.Lock()), self._places:
                if self._uploads.login_of(secret) is None:
                    return _gone()
                name, content = await _sent_file(request)
                found = await self._fill(secret, name, content)
        except OSError:
            return self._unusable()
        except _Refused as refused:
            return _form(str(login), str(refused), refused.status)
        if found is None:
            return _gone()
        details = {"type": found.media_type, "bytes": len(content)}
        address = request.client.host if request.client else None
        self._on_event(AuditEvent(event="upload", outcome="ok", login=login, address=address, details=details))
        return page("uploaded.html", {})

    async def _fill(self, secret: str, name: str, content: bytes) -> FileType | None:
        try:
            return await asyncio.to_thread(self._uploads.fill, secret, name, content)
        except BadFile as bad:
            raise _Refused(f"This file {bad}.", 415) from None

    def _unusable(self) -> Response:
        _log.exception("the directory of uploads cannot be used")
        return unavailable_page()


def _form(login: str, message: str = "", status: int = 200) -> Response:
    accepts = ",".join(kind.media_type for kind in TYPES)
    values = {"megabytes": MAX_FILE_BYTES // 1_000_000, "accepts": accepts, "login": login, "message": message}
    return page("upload.html", values, status=status)


def _gone() -> Response:
    return problem_page(
        "This link does not serve any more", "It serves once, and for ten minutes.", _ANEW, status=404
    )


async def _sent_file(request: Request) -> tuple[str, bytes]:
    """Read a form with one file; return the file's name and bytes.

    Raises:
        _Refused: it is none, or too large.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise _Refused(_NO_FORM, 415)
    if int(request.headers.get("content-length") or 0) > _MAX_FORM:
        raise _Refused(_TOO_LARGE, 413)
    boundary = _BOUNDARY.fullmatch(request.headers["content-type"].strip())
    if boundary is None:
        raise _Refused(_NO_FORM, 400)
    headers = Headers({"content-type": f'multipart/form-data; boundary="{boundary[2]}"'})
    try:
        form = await _InMemory(headers, _bounded(request), max_files=1, max_fields=_FIELDS).parse()
    except MultiPartException:
        raise _Refused(_NO_FORM, 400) from None
    except ClientDisconnect:
        raise _Refused("The file did not come whole. Try again, on a slow line with a smaller one.", 400) from None
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise _Refused("Choose a file first.", 400)
        return file.filename or "", await file.read()
    finally:
        await form.close()


async def _bounded(request: Request) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _MAX_FORM:
            raise _Refused(_TOO_LARGE, 413)
        yield chunk
