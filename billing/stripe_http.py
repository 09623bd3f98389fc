"""Carries the SDK's requests over one httpx client: asynchronous only, bounded in time and size.

The SDK's own `HTTPXClient` hands text bodies to httpx in a deprecated way, reads answers of any
size, and cannot be given a transport.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import httpx
import stripe

TIMEOUT_S: Final = 20.0
"""The SDK's default is 80 s, longer than a payment may take to be decided."""
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""A page of 100 events with their objects is about 1 MiB."""

_PERMIT: ContextVar[Callable[[], bool] | None] = ContextVar("permit", default=None)


class _NotPermittedError(httpx.TransportError):
    """Too late: not a byte of the request was written."""


@contextmanager
def written_only_if(permit: Callable[[], bool]) -> Iterator[None]:
    """Requests made in here ask `permit` at the last moment; a no ends them as a lost connection.

    Waiting for the rate limit, for a connection, or beside a sleeping laptop's lid takes time in
    which what allowed the request may end (M4).
    """
    token = _PERMIT.set(permit)
    try:
        yield
    finally:
        _PERMIT.reset(token)


async def _before_the_write(event: str, info: Mapping[str, object]) -> None:
    """httpcore's trace: https://www.encode.io/httpcore/extensions/#trace."""
    if event.endswith(".send_request_headers.started"):
        _ask_permit()


def _ask_permit() -> None:
    permit = _PERMIT.get()
    if permit is not None and not permit():
        raise _NotPermittedError("too late to be sent")


class StripeHttp(stripe.HTTPClient):
    """Synchronous calls are not implemented, on purpose: they would block the loop."""

    name = "httpx"

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        super().__init__()
        self._httpx = httpx.AsyncClient(timeout=TIMEOUT_S, transport=transport)

    async def request_async(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: str | bytes | None = None,
    ) -> tuple[bytes, int, httpx.Headers]:
        """(body, status, headers); `APIConnectionError` when there is no whole answer."""
        try:
            _ask_permit()
            async with self._httpx.stream(
                method,
                url,
                headers=dict(headers),
                content=post_data,
                extensions={"trace": _before_the_write},
            ) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise httpx.DecodingError("too large")
                return bytes(body), response.status_code, response.headers
        except httpx.HTTPError as error:
            raise stripe.APIConnectionError(  # type: ignore[no-untyped-call]
                type(error).__name__
            ) from error

    async def close_async(self) -> None:
        """Ends the connections."""
        await self._httpx.aclose()
