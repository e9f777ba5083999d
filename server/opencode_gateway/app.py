"""The ASGI application: FastMCP's, with the proxy in it, behind the guards."""

from __future__ import annotations

import gc
import logging
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastmcp import FastMCP
from starlette.middleware import Middleware
from starlette.routing import Route

from opencode_gateway.calls.audited import AuditCalls
from opencode_gateway.calls.bounds import Bounds
from opencode_gateway.calls.callers import TellCallers
from opencode_gateway.calls.changes import Changes
from opencode_gateway.calls.children import Children, Instructions
from opencode_gateway.calls.permissions import Permissions
from opencode_gateway.calls.resources import OpenCodeResources
from opencode_gateway.calls.source import OpenCodeSource
from opencode_gateway.configuration import MCP_PATH
from opencode_gateway.door.bodies import MendedBody
from opencode_gateway.door.guards import HEALTH_PATH, guarded
from opencode_gateway.door.health import GatewayHealth
from opencode_gateway.door.limits import CallLimits
from opencode_gateway.door.streams import StreamEnds
from opencode_gateway.door.tokens_first import TokensFirst
from opencode_gateway.pages import landing
from opencode_gateway.pages.uploads import UploadPages
from opencode_gateway.telling import Telling, state_directory
from opencode_pages.inbox import EVENTS_PATH
from opencode_pages.paths import INBOX_PATH
from opencode_pages.routes import routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from fastmcp.server.auth import AuthProvider
    from starlette.types import ASGIApp

    from opencode_gateway.audit import AuditLog
    from opencode_gateway.calls.servers import Servers
    from opencode_gateway.configuration import Configuration
    from opencode_gateway.people.directory import Directory
    from opencode_gateway.refusals import Refusal
    from opencode_pages.parts import Door, Signatures

_log = logging.getLogger(__name__)


def build_app(
    configuration: Configuration,
    servers: Servers,
    auth: AuthProvider,
    log: AuditLog,
    environ: Mapping[str, str],
    *,
    door: Door | None = None,
    signatures: Signatures | None = None,
    account: Sequence[Route] = (),
    directory: Directory | None = None,
    origins: Callable[[], Collection[str]] = tuple,
    on_refusal: Callable[[Refusal], None] = lambda refusal: None,
) -> ASGIApp:
    """Return the application; the children live as long as its lifespan.

    Args:
        configuration: all settings.
        servers: what is served.
        auth: says what a token may do, and has the routes on which one is got.
        log: of audit.
        environ: the gateway's own.
        door: of pages on which people decide; None: there are none.
        signatures: of passkeys, over what is decided there.
        account: routes of the pages on which people add them, which lead to the others and are served with them.
        directory: who may come in, and so be told; None: everybody is told for whom that was set up.
        origins: whose web pages may be clients now.
        on_refusal: hears of those who are refused at the door.
    """
    release = version("opencode-relay")
    uploads = UploadPages(configuration.data_dir / "uploads", configuration.public_url, log.write)
    # Whoever hears who calls may open places for files of theirs.
    served = {
        name: server.with_variables(uploads.variables) if server.is_told_callers(name) else server
        for name, server in servers.items()
    }
    children = Children(served, environ, configuration.tool_timeout_seconds, release)
    opencode = children.opencode()
    pages: list[Route] = []
    changes = Changes(state_directory(served, environ))
    asked = opencode if opencode is not None and opencode.server.is_told_callers(opencode.name) else None
    has_pages = asked is not None and door is not None
    telling = Telling(
        configuration.data_dir, served, environ, configuration.public_url, has_pages=has_pages, directory=directory
    )
    if asked is not None and door is not None:
        source = OpenCodeSource(
            asked,
            log,
            changes,
            configuration.public_url,
            passkey_for=configuration.passkey_for,
            failing=telling.failing,
        )
        shown = routes(source, door, pushes=telling.pushes(), told=telling, signatures=signatures)
        pages = [*shown, *account]
    observing = frozenset(configuration.capabilities["observe"])

    @asynccontextmanager
    async def lifespan(_server: FastMCP[None]) -> AsyncIterator[None]:
        async with children.running(), uploads.pruning(), changes.running(), telling.running():
            # Older defaults that somebody wrote out are no reason not to serve, nor to guess who may do what is new.
            for warning in children.compared(configuration.capabilities).warnings():
                _log.warning("%s", warning)
            # What was loaded stays. Collections that look at it again and again are near a tenth of a call's time.
            gc.collect()
            gc.freeze()
            yield

    server: FastMCP[None] = FastMCP(
        "opencode-gateway",
        version=release,
        auth=auth,
        lifespan=lifespan,
        # The child checks arguments, and says in better words what is wrong with them; its schemas pass as they are.
        strict_input_validation=False,
        dereference_schemas=False,
        middleware=[
            AuditCalls(log, observing, children.server_of),
            Permissions(configuration.tools, children.serves_of_opencode),
            TellCallers(
                children.is_told_callers,
                children.decides,
                lambda tool: configuration.public_url if pages and children.has_pages(tool) else None,
                on_page_alone=configuration.approvals == "page",
                always="always" not in configuration.passkey_for,
            ),
            Bounds(configuration.tool_timeout_seconds, children, observing),
            Instructions(children),
            OpenCodeResources(opencode),
        ],
    )
    for provider, prefix in children.providers():
        server.add_provider(provider, namespace=prefix)
    if len(children.all) == 1:
        # Rather an error than an empty list of tools, which chat clients remember.
        server.provider_error_strategy = "raise"
    app = server.http_app(
        MCP_PATH,
        transport="http",
        stateless_http=True,
        json_response=False,
        host_origin_protection=False,
        # The body is read whole behind the limits alone.
        middleware=[
            Middleware(StreamEnds, path=EVENTS_PATH),
            Middleware(TokensFirst),
            Middleware(CallLimits),
            Middleware(MendedBody),
        ],
    )
    app.router.routes.extend(landing.routes(configuration.resource, inbox=INBOX_PATH if pages else None))
    app.router.routes.extend(pages)
    app.router.routes.extend(uploads.routes())
    app.router.routes.append(Route(HEALTH_PATH, GatewayHealth(children).endpoint, methods=["GET"]))
    return guarded(
        app,
        configuration.public_url,
        origins=origins,
        on_refusal=on_refusal,
    )
