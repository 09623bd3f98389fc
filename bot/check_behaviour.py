"""Tries with a test key what Stripe does where its documentation is silent, and cleans up.

Purser works either way; this says which way it is. Only ever in test mode: the key must say so, and
so must the first object that is made. It was written against the embedded Stripe and has not been
run against the real one yet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from billing.stripe_views import API_VERSION, id_of
from bot.check_stripe import API, Told
from bot.config import Config

WHAT: Final = "Stripe behaviour"
NAME: Final = "purser check: throw-away"
AMOUNT_MINOR: Final = 400
UNKNOWN_EVENT: Final = "evt_purser_check_unknown"


class _Stopped(Exception):
    """A step that the rest needs did not work; the text says which."""


async def check_behaviour(config: Config, http: httpx.AsyncClient, key: str) -> list[Told]:
    """`key` makes the idempotency keys of this run. Nothing is made without a test key."""
    if config.stripe.api_key is None:
        return []
    secret = config.stripe.api_key.get_secret_value()
    if not secret.startswith(("sk_test_", "rk_test_")):
        return [(WHAT, "failed", "is only tried with a test key (sk_test_… or rk_test_…)")]
    trial = _Trial(http, config.stripe.api_base or API, secret, config.stripe.currency, key)
    try:
        await trial.run()
    except _Stopped as stopped:
        trial.told.append((WHAT, "failed", str(stopped)))
    except httpx.HTTPError as error:
        trial.told.append((WHAT, "failed", f"no answer ({type(error).__name__})"))
    finally:
        await trial.clean_up()
    return trial.told


@dataclass(slots=True)
class _Trial:
    http: httpx.AsyncClient
    base: str
    secret: str
    currency: str
    key: str
    told: list[Told] = field(default_factory=list)
    _undo: list[Callable[[], Awaitable[object]]] = field(default_factory=list)
    _steps: int = 0

    async def run(self) -> None:
        """Each finding by itself; what was made is remembered before anything else happens."""
        customer = await self._make("customers", {"name": NAME}, self._delete)
        if customer.get("livemode") is not False:
            raise _Stopped("the key says test, and Stripe made a live customer; it is deleted")
        price = await self._make(
            "prices",
            {
                "currency": self.currency,
                "unit_amount": str(AMOUNT_MINOR),
                "recurring[interval]": "month",
                "product_data[name]": NAME,
            },
            self._archive,
        )
        sub = await self._make(
            "subscriptions",
            {
                "customer": customer["id"],
                "items[0][price]": price["id"],
                "collection_method": "charge_automatically",
                "payment_behavior": "default_incomplete",
                "billing_mode[type]": "flexible",
            },
            self._delete,
        )
        await self._first_invoice(sub)
        await self._unknown_cursor()

    async def _first_invoice(self, sub: dict[str, Any]) -> None:
        invoice_id = id_of(sub.get("latest_invoice"))
        invoice = await self._get(f"invoices/{invoice_id}") if invoice_id else {}
        as_wanted = sub.get("status") == "incomplete" and invoice.get("status") == "open"
        self._say(
            as_wanted,
            "without a card a subscription waits (incomplete) with an open first invoice",
            f"without a card a subscription is {sub.get('status')} and its first invoice "
            f"{invoice.get('status')}: Purser expects incomplete and open, do not go live",
            failed=True,
        )
        if not as_wanted:
            return
        item = sub["items"]["data"][0]["id"]
        changed = await self._post(
            f"subscriptions/{sub['id']}",
            {"items[0][id]": item, "items[0][quantity]": "2", "proration_behavior": "none"},
        )
        self._say(
            changed.status_code >= 400,
            "an incomplete subscription takes no other items, as Purser assumes",
            "an incomplete subscription takes other items; Purser waits for the payment all the"
            " same",
        )
        paid = await self._post(f"invoices/{invoice_id}/pay", {"paid_out_of_band": "true"})
        after = await self._get(f"subscriptions/{sub['id']}")
        self._say(
            paid.status_code == 200 and after.get("status") == "active",
            "a first invoice paid outside Stripe makes the subscription active",
            f"a first invoice paid outside Stripe ({paid.status_code}) leaves the subscription "
            f"{after.get('status')}: orders paid over Lightning would not renew, do not go live",
            failed=True,
        )

    async def _unknown_cursor(self) -> None:
        answer = await self.http.get(
            f"{self.base}/v1/events",
            params={"ending_before": UNKNOWN_EVENT, "limit": "1"},
            headers=self._headers(),
        )
        self._say(
            answer.status_code >= 400,
            "an event that Stripe has forgotten is refused as a cursor",
            "an event that Stripe does not know is taken as a cursor; Purser goes by time too",
        )

    def _say(self, is_so: bool, expected: str, other: str, *, failed: bool = False) -> None:
        verdict = "ok" if is_so else "failed" if failed else "warn"
        self.told.append((WHAT, verdict, expected if is_so else other))

    # --- calls ----------------------------------------------------------------------------------

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}", "Stripe-Version": API_VERSION}

    async def _post(self, path: str, body: dict[str, str]) -> httpx.Response:
        self._steps += 1
        headers = self._headers() | {"Idempotency-Key": f"{self.key}-{self._steps}"}
        return await self.http.post(f"{self.base}/v1/{path}", data=body, headers=headers)

    async def _get(self, path: str) -> dict[str, Any]:
        answer = await self.http.get(f"{self.base}/v1/{path}", headers=self._headers())
        return _body(answer, path)

    async def _make(
        self,
        kind: str,
        body: dict[str, str],
        undo: Callable[[str, dict[str, Any]], Awaitable[object]],
    ) -> dict[str, Any]:
        made = _body(await self._post(kind, body), kind)
        self._undo.append(lambda: undo(kind, made))
        return made

    # --- cleaning up ----------------------------------------------------------------------------

    async def clean_up(self) -> None:
        """The last first; what is left over is named."""
        left = 0
        for undo in reversed(self._undo):
            try:
                await undo()
            except (_Stopped, httpx.HTTPError):
                left += 1
        if left:
            text = f"{left} of the test objects called “{NAME}” are left over at Stripe"
            self.told.append((WHAT, "warn", f"{text}: delete them in the Dashboard"))

    async def _delete(self, kind: str, made: dict[str, Any]) -> None:
        answer = await self.http.delete(
            f"{self.base}/v1/{kind}/{made['id']}", headers=self._headers()
        )
        _body(answer, kind)

    async def _archive(self, kind: str, made: dict[str, Any]) -> None:
        """Prices and their products cannot be deleted."""
        _body(await self._post(f"{kind}/{made['id']}", {"active": "false"}), kind)
        product = id_of(made.get("product"))
        _body(await self._post(f"products/{product}", {"active": "false"}), "products")


def _body(answer: httpx.Response, what: str) -> dict[str, Any]:
    """Stripe's code, not its words: those repeat part of the key."""
    if answer.status_code == 403:
        raise _Stopped(f"the restricted key may not use {what.split('/', maxsplit=1)[0]}")
    if answer.status_code != 200:
        raise _Stopped(f"{what.split('/', maxsplit=1)[0]}: Stripe answers {answer.status_code}")
    found = answer.json()
    if not isinstance(found, dict):
        raise _Stopped(f"{what.split('/', maxsplit=1)[0]}: an answer that is not Stripe's")
    return found
