"""Asks an identity provider: at its token endpoint, and for what it says about the owner of a token."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
import httpx2

from opencode_gateway.sign_in.step import ProviderFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TIMEOUT_SECONDS: Final = 10.0
"""For each step of an answer, as httpx2 counts them."""
WHOLE_SECONDS: Final = 20.0
"""For all of it."""

Authentication = Literal["client_secret_basic", "client_secret_post"]


class RefusedByProvider(Exception):
    """A provider said no. `error` is OAuth's word for why."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def understood(name: str) -> Iterator[None]:
    """Turn what goes wrong when a provider is asked, or when its answer is read, into `ProviderFailed`."""
    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        raise ProviderFailed(f"{name} does not answer: try again later") from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ProviderFailed(f"{name} gave an answer that cannot be used") from error


class TokenEndpoint:
    """Exchanges codes and refresh tokens for what a provider gives.

    Args:
        name: the provider's, for people.
        url: where it is.
        client_id: ours there, and `client_secret`.
        authentication: how they are sent.
    """

    def __init__(
        self, name: str, url: str, client_id: str, client_secret: str, authentication: Authentication
    ) -> None:
        self._name = name
        self._url = url
        self._credentials = {"client_id": client_id, "client_secret": client_secret}
        self._basic = httpx2.BasicAuth(client_id, client_secret) if authentication == "client_secret_basic" else None

    async def tokens(self, grant: Mapping[str, str]) -> dict[str, Any]:
        """Return the answer, which holds an access token.

        Raises:
            RefusedByProvider: it holds an error.
            ProviderFailed: there is none, or none that can be used.
        """
        form = dict(grant) if self._basic else {**grant, **self._credentials}
        with understood(self._name):
            with anyio.fail_after(WHOLE_SECONDS):
                async with httpx2.AsyncClient(auth=self._basic, timeout=TIMEOUT_SECONDS) as client:
                    response = await client.post(self._url, data=form, headers={"Accept": "application/json"})
            if response.status_code >= 500:
                response.raise_for_status()
            answer: dict[str, Any] = response.json()
            if answer.get("error") is not None:
                raise RefusedByProvider(str(answer["error"])[:100])
            if isinstance(answer["access_token"], str) and answer["access_token"]:
                return answer
        raise ProviderFailed(f"{self._name} gave an answer without a token")


async def owner_of(url: str, access_token: str) -> Any:
    """Return what a provider says about the owner of a token, parsed. To be used within `understood`.

    Raises:
        RefusedByProvider: `invalid_grant`, the token is not good any longer.
    """
    with anyio.fail_after(WHOLE_SECONDS):
        async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS) as client:
            response = await client.get(
                url, headers={"Authorization": f"Bearer {access_token}", "Accept": "application/json"}
            )
    if response.status_code == 401:
        raise RefusedByProvider("invalid_grant")
    response.raise_for_status()
    return response.json()
