"""Resources: instances and sessions as the tools show them, for clients that attach something to a chat.

opencode://instances           all instances, as `instances` lists them
opencode://instances/{name}    that instance, with its newest sessions
opencode://sessions/{handle}   that conversation, as `read` shows it

Three more are for pages, which know them, and are not listed: `opencode_pages.documents`.

A name is percent-encoded, and means the instance of exactly that name. A client may fetch a resource without showing
it to anybody: what stands in one counts as shown to nobody.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from mcp.server.mcpserver import Context  # noqa: TC002 - the SDK reads the annotation
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.server.mcpserver.resources import DEFAULT_RESOURCE_SECURITY, ResourceSecurity
from mcp.shared.uri_template import UriTemplate
from mcp_types import Resource, TextContent

from opencode_common.text import clean, fence, one_line, quote
from opencode_fleet.errors import FleetError, Refused
from opencode_fleet.fleet import Fleet  # noqa: TC001 - as above
from opencode_fleet.session_list import list_sessions
from opencode_mcp.documents import Documents, NoSuchAsk
from opencode_mcp.tools.instances import instances
from opencode_mcp.tools.read import read
from opencode_mcp.views.instances import TITLE_LENGTH, in_order
from opencode_mcp.views.sessions import sessions_result, sessions_text
from opencode_mcp.views.shares import in_turns
from opencode_pages.documents import ASK, ASK_OF, INBOX, JSON

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp.server.mcpserver import MCPServer
    from mcp_types import CallToolResult

    from opencode_fleet.instance import Instance
    from opencode_mcp.face import Face

INSTANCES: Final = "opencode://instances"
INSTANCE: Final = "opencode://instances/{name}"
SESSION: Final = "opencode://sessions/{handle}"
PLAIN: Final = "text/plain"
FOR_PAGES: Final = frozenset({INBOX, ASK, ASK_OF})
"""Those that are not listed: a chat has the tools."""
MAX_LISTED: Final = 50
"""Instances that have an entry of their own in the list of resources; their templates reach the others."""
MAX_SESSIONS: Final = 10
"""Sessions that stand with an instance."""
_INSTANCE: Final = UriTemplate.parse(INSTANCE)
_SESSION: Final = UriTemplate.parse(SESSION)


class Resources:
    """The resources over one face."""

    def __init__(self, face: Face) -> None:
        self._face = face.beside()
        self._documents = Documents(self._face)

    def offer(self, server: MCPServer[Fleet]) -> None:
        """Have the server answer reads of them, and list the one that is always there and the templates."""
        server.resource(
            INSTANCES,
            name="instances",
            title="All OpenCode instances",
            description="What needs you first: state, directory, newest session.",
            mime_type=PLAIN,
        )(self._all)
        server.resource(
            INSTANCE,
            name="instance",
            title="An OpenCode instance",
            description="By its name, percent-encoded: its state and its newest sessions.",
            mime_type=PLAIN,
        )(self._instance)
        server.resource(
            SESSION,
            name="session",
            title="A conversation",
            description="By its handle, as s12: the last messages, with tool calls and what streams now.",
            mime_type=PLAIN,
        )(self._session)
        server.resource(INBOX, mime_type=JSON)(self._inbox)
        server.resource(ASK, mime_type=JSON)(self._ask)
        # The name is looked up among those that there are, and leads to no file.
        server.resource(ASK_OF, mime_type=JSON, security=ResourceSecurity(exempt_params={"instance"}))(self._ask_of)

    async def present(self) -> list[Resource]:
        """Return an entry for each of the first instances, and for the newest session of each.

        What its machine says of a thing stands in the description, inside delimiters.
        """
        found = in_order(await self._face.fleet.instances())
        # What a path could hide in has no address, so no entry.
        found = [each for each in found if DEFAULT_RESOURCE_SECURITY.validate({"name": each.name}) is None]
        turns = in_turns([instance.endpoint.machine for instance in found])
        listed = [found[index] for index in sorted(turns[:MAX_LISTED])]
        newest = [(instance, session) for instance in listed if (session := instance.state.newest_root())]
        self._face.handles.prepare("s", [(instance.name, session.id) for instance, session in newest])
        sessions = [
            _entry(
                _SESSION.expand({"handle": handle}),
                f"Session {handle} of {instance.quoted}",
                quote(session.title, TITLE_LENGTH),
            )
            for instance, session in newest
            if (handle := self._face.handles.of_session(instance.name, session.id))
        ]
        return [*map(self._entry_of, listed), *sessions]

    def _entry_of(self, instance: Instance) -> Resource:
        ((row, _),) = self._face.rows.of([instance], self._face.outbox.counts())
        return _entry(
            _INSTANCE.expand({"name": instance.name}),
            f"Instance {instance.quoted}",
            f"{row.state}, in {quote(row.directory, len(row.directory))}" if row.directory else row.state,
        )

    # -- reads ---------------------------------------------------------------------------------------------------

    async def _all(self) -> str:
        with _in_words():
            return _text(await instances(self._face))

    async def _instance(self, name: str) -> str:
        with _in_words():
            instance = await self._named(name)
            found = await list_sessions([instance], "", MAX_SESSIONS)
            ((_, line),) = self._face.rows.of([instance], self._face.outbox.counts())
            told = sessions_text(sessions_result(found, self._face.handles), found, "")
            return f"{fence(line)}\nIts newest sessions:\n{told}"

    async def _session(self, handle: str, ctx: Context[Fleet, Any]) -> str:
        with _in_words():
            try:
                name = self._face.handles.instance_of_session(handle)
            except Refused as error:
                raise ResourceNotFoundError(str(error)) from None
            # Another instance may have a name that this one's is a part of.
            await self._named(name)
            return _text(await read(self._face, ctx, name, session=handle))

    # -- for pages -----------------------------------------------------------------------------------------------

    async def _inbox(self) -> str:
        with _in_words():
            return (await self._documents.inbox()).model_dump_json()

    async def _ask(self, handle: str) -> str:
        with _in_words():
            return (await self._documents.ask(handle)).model_dump_json()

    async def _ask_of(self, instance: str, id: str) -> str:  # noqa: A002 - as the address has it
        with _in_words():
            return (await self._documents.ask_of(instance, id)).model_dump_json()

    async def _named(self, name: str) -> Instance:
        """Return the instance of exactly that name: an address means one thing."""
        found = next((each for each in await self._face.fleet.instances() if each.name == name), None)
        if found is None:
            raise ResourceNotFoundError(f"no instance is named {one_line(name, 64)!r}; {INSTANCES} lists all")
        return found


@contextmanager
def _in_words() -> Iterator[None]:
    """Let what a person can mend come out in its own words."""
    try:
        yield
    except NoSuchAsk as error:
        raise ResourceNotFoundError(clean(str(error))) from None
    except FleetError as error:
        raise ResourceError(clean(str(error))) from None


def _entry(uri: str, title: str, description: str) -> Resource:
    # The name is for programs; unlike the title, some clients show it to nobody.
    name = uri.partition("://")[2]
    return Resource(uri=uri, name=name, title=title, description=description, mime_type=PLAIN)


def _text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))
