"""Makes outlets of settings, which a file or a command has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opencode_notify.errors import BadOutlet
from opencode_notify.network import INTERNET, Network
from opencode_notify.outlets import everything_else, ntfy, web_push, webhook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opencode_notify.notice import Outlet

KINDS: Final[Mapping[str, Callable[[Mapping[str, object], Network], Outlet]]] = {
    "ntfy": ntfy.outlet,
    "webhook": webhook.outlet,
    "web_push": web_push.outlet,
    "apprise": everything_else.outlet,
}
"""By the `kind` in the settings; what else must be there is in the file of each."""


def outlet_of(settings: Mapping[str, object], network: Network = INTERNET) -> Outlet:
    """Return the outlet of `settings`, which have a `kind` and what that kind needs. Nothing is connected to.

    Raises:
        BadSettings: one of them is wrong; says which and what helps, and quotes none.
    """
    kind = settings.get("kind")
    make = KINDS.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise BadOutlet(f"kind: must be one of {', '.join(KINDS)}")
    return make({name: value for name, value in settings.items() if name != "kind"}, network)
