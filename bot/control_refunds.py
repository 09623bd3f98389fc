"""`purser refund` and `purser credit` where the accounts are: amounts are read, intents opened."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from billing.adopt_balance import AdoptRefused, BalanceAdopter
from billing.errors import ConfigurationWrong
from billing.money import format_fiat, from_decimal
from billing.refund_desk import RefundDesk, RefundRefused
from billing.refunds import Refund, RefundWay
from billing.store import invoices
from bot.build import Core
from bot.control import ControlRefused, Json
from bot.logs import redact
from bot.nostr.nip19 import npub_encode

MAX_REASON_CHARS = 240
"""One line of the audit log, and of Stripe's credit note."""
_AMOUNT: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
"""What `Decimal` reads beyond it (1e999999, 1_0.5) costs the bot's loop seconds, or surprises."""


@dataclass(slots=True)
class RefundControl:
    """Every refusal becomes `ControlRefused`, with what stands against it."""

    core: Core

    async def refund(
        self, invoice_id: str, amount: str | None, to: str | None, reason: str, *, again: bool
    ) -> Json:
        """Open a refund of a paid invoice: {refund, state, way, amount, …}."""
        reason = _reason(reason)
        async with self.core.rt.unit() as unit:
            invoice = await invoices.get(unit.tx, invoice_id)
        if invoice is None:
            raise ControlRefused(f"there is no invoice {invoice_id}")
        amount_minor = None if amount is None else _minor(amount, invoice.currency)
        try:
            way = None if to is None else RefundWay(to)
        except ValueError:
            raise ControlRefused("--to is lightning, card or balance") from None
        try:
            made = await self._desk().refund(invoice_id, amount_minor, way, reason, again=again)
        except RefundRefused as error:
            raise ControlRefused(str(error)) from None
        return _shown(made)

    async def credit(
        self, pubkey: str, amount: str, currency: str | None, reason: str, *, again: bool
    ) -> Json:
        """Open a credit that belongs to no invoice."""
        reason = _reason(reason)
        unit_of = (currency or self.core.config.stripe.currency).lower()
        try:
            made = await self._desk().credit(
                pubkey, _minor(amount, unit_of), unit_of, reason, again=again
            )
        except RefundRefused as error:
            raise ControlRefused(str(error)) from None
        return _shown(made)

    async def decide(self, refund_id: str, *, paid: bool, reason: str) -> Json:
        """The operator's word on a refund that our spending wallet cannot decide."""
        try:
            made = await self._desk().decide(refund_id, paid=paid, reason=_reason(reason))
        except RefundRefused as error:
            raise ControlRefused(str(error)) from None
        return _shown(made)

    async def adopt_balance(self, pubkey: str, *, reason: str) -> Json:
        """Stripe's balance of this tenant becomes the books': {tenant, credit}."""
        adopter = BalanceAdopter(self.core.rt, self.core.stripe)
        try:
            made = await adopter.adopt(pubkey, _reason(reason))
        except AdoptRefused as error:
            raise ControlRefused(str(error)) from None
        return {
            "tenant": npub_encode(pubkey),
            "credit_booked": format_fiat(made.credit_minor, made.currency),
        }

    def _desk(self) -> RefundDesk:
        return RefundDesk(self.core.rt, self.core.stripe, self.core.rates)


def _reason(text: str) -> str:
    reason = redact(" ".join(text.split()))[:MAX_REASON_CHARS]
    if not reason:
        raise ControlRefused("a reason is needed: it goes into the audit log and to Stripe")
    return reason


def _minor(text: str, currency: str) -> int:
    try:
        if _AMOUNT.fullmatch(text) is None:
            raise ConfigurationWrong(currency, "not a plain amount")
        return from_decimal(Decimal(text), currency)
    except ConfigurationWrong:
        raise ControlRefused(f"{text[:20]} is no amount of {currency}; write 2.50") from None


def _shown(refund: Refund) -> Json:
    return {
        "refund": refund.id,
        "state": refund.state.value,
        "way": refund.way.value,
        "amount": format_fiat(refund.amount_minor, refund.currency),
        "sats": None if refund.amount_msat is None else refund.amount_msat // 1000,
        "invoice": refund.invoice_id,
    }
