"""Holds the SDK's client and the way every call to Stripe goes: options, limits, raw answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import stripe

from billing.errors import ConfigurationWrong
from billing.ports import Ids
from billing.stripe_calls import LIVE_REQUESTS_PER_S, TEST_REQUESTS_PER_S, CallClass, StripeCalls
from billing.stripe_http import StripeHttp
from billing.stripe_lists import StripeLists
from billing.stripe_views import API_VERSION

if TYPE_CHECKING:
    from stripe import RequestOptions

OPERATION_KEY: Final = "purser_operation"
MAX_METADATA_KEY: Final = 40
MAX_METADATA_VALUE: Final = 500
"""https://docs.stripe.com/metadata"""


def options_for(operation_id: str) -> RequestOptions:
    """The idempotency key of a write; an empty one is a bug (M11)."""
    if not operation_id.strip():
        raise ValueError("every write to Stripe has a stored operation id (M11)")
    return {"idempotency_key": operation_id}


def checked_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """What Stripe takes: it would refuse more, and cut nothing."""
    for key, value in metadata.items():
        if not 0 < len(key) <= MAX_METADATA_KEY or len(value) > MAX_METADATA_VALUE:
            raise ValueError(f"metadata {key[:MAX_METADATA_KEY]} is longer than Stripe takes")
    return dict(metadata)


class StripeSession:
    """The client, its limits, and lists; the gateway's base."""

    def __init__(
        self,
        api_key: str,
        ids: Ids,
        *,
        api_base: str | None = None,
        requests_per_s: float | None = None,
        http: StripeHttp | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not api_key.startswith(("sk_", "rk_")):
            raise ConfigurationWrong("stripe.api_key", "is not a secret or restricted key")
        self._livemode = api_key.startswith(("sk_live_", "rk_live_"))
        self._http = http or StripeHttp()
        client = stripe.StripeClient(
            api_key,
            http_client=self._http,
            stripe_version=API_VERSION,
            max_network_retries=0,
            base_addresses={"api": api_base.rstrip("/")} if api_base else None,
        )
        default = LIVE_REQUESTS_PER_S if self._livemode else TEST_REQUESTS_PER_S
        self._calls = StripeCalls(
            ids, requests_per_s=requests_per_s or default, monotonic=monotonic, sleep=sleep
        )
        self._v1 = client.v1
        self._lists = StripeLists(client, self._calls)

    async def close(self) -> None:
        """Ends the connections."""
        await self._http.close_async()

    async def _raw(
        self,
        subject: str,
        call_class: CallClass,
        call: Callable[[], Awaitable[stripe.StripeObject]],
    ) -> dict[str, Any]:
        return (await self._calls.run(subject, call_class, call)).to_dict()
