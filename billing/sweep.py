"""Sweeps the payee's incoming transactions for settled hashes that no look-up has noticed (M9)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from billing.adoption import adopt_request
from billing.errors import NoQuote
from billing.model import Connection, Invoice, RequestState
from billing.money import format_fiat, to_decimal
from billing.payments import MARGIN_S, WATCH_S
from billing.ports import Payees, Quoter
from billing.rails.issue import NotedRequest
from billing.store import invoices, payments, tenants
from billing.unit import Runtime, Unit
from wallet.bolt11 import Bolt11Error, decode
from wallet.ports import Transaction, Unreachable

EVERY_S: Final = 900
"""Look-ups are the rule; a sweep finds what one of them missed."""
OVERLAP_S: Final = 2 * 86400
"""Wallets list by creation or by settlement, and a payment may settle long after it was issued."""
CURSOR: Final = "payee_sweep"
MSAT_PER_BTC: Final = 100_000_000_000
RATE_BAND: Final = Decimal("0.10")
"""What was asked for at another rate than today's by more than this is for people to look at."""
_INVOICE = re.compile(r"\((in_[A-Za-z0-9_]{1,60})\)")
"""How `billing.rails.issue` ends the description of what it asks for."""


@dataclass(slots=True)
class Sweeper:
    """Hastens look-ups; what they say decides (M6)."""

    rt: Runtime
    payees: Payees
    quoter: Quoter
    _tried_at: int = -EVERY_S

    async def run_once(self, now: int) -> int:
        """Ask once for all that came in lately; returns how many look-ups were hastened. A wallet
        that does not offer it, or is silent, costs nothing: the look-ups go on by themselves."""
        async with self.rt.unit() as unit:
            connection = await tenants.payee(unit.tx)
            swept = await unit.tx.scalar("leases.cursor", name=CURSOR)
        # Swept "later" than now: the clock was ahead, and must not keep us waiting for that day.
        if connection is None or (swept is not None and 0 <= now - int(swept) < EVERY_S):
            return 0
        if 0 <= now - self._tried_at < EVERY_S:
            return 0
        # Never swept: a new database, or one that was lost.
        since = min(int(swept), now) - OVERLAP_S if swept is not None else now - WATCH_S
        payee = await self.payees.payee(connection)
        answer = await payee.list_incoming(since)
        found = [t for t in answer if t.is_incoming_settled] if isinstance(answer, list) else []
        hastened, is_whole = 0, not isinstance(answer, Unreachable)
        for transaction in found:
            is_whole &= await self._take_up(connection, transaction)
            hastened += await self._hasten(transaction)
        if not is_whole:
            # The next look goes back as far: after a lost database that is a month.
            self._tried_at = now
            return hastened
        async with self.rt.unit() as unit:
            await unit.tx.execute("leases.set_cursor", name=CURSOR, value=str(now))
        return hastened

    async def _take_up(self, payee: Connection, transaction: Transaction) -> bool:
        """Money for an invoice of ours by a hash that neither this database nor Stripe's metadata
        knows: the database was lost before the hash was noted, or the note is gone. False: it
        cannot be valued now."""
        invoice_id, amount_msat = _names_invoice(transaction), transaction.amount_msat or 0
        if invoice_id is None or amount_msat <= 0:
            return True
        async with self.rt.unit() as unit:
            if await payments.request_by_hash(unit.tx, transaction.payment_hash) is not None:
                return True
            invoice = await invoices.get(unit.tx, invoice_id)
        if invoice is None:
            return True
        # Each request asks for all that remains: that gives the rate it was made at.
        amount_minor = invoice.amount_remaining_minor
        rate = to_decimal(amount_minor, invoice.currency) * MSAT_PER_BTC / amount_msat
        try:
            is_ours = invoice.status == "open" and await self._is_believable(invoice, rate)
        except NoQuote:
            return False
        async with self.rt.unit() as unit:
            if not is_ours:
                await self._tell_foreign(unit, invoice, transaction.payment_hash, amount_msat)
                return True
            noted = NotedRequest(
                transaction.payment_hash,
                transaction.expires_at or unit.now,
                MARGIN_S["unknown"],
                amount_msat,
                amount_minor,
                f"{rate:.2f}",
            )
            await adopt_request(self.rt, unit, payee, invoice, noted)
        return True

    async def _is_believable(self, invoice: Invoice, rate: Decimal) -> bool:
        """A description may be anybody's words (a donation page takes memos): without a note of
        ours, only what was paid at about the true rate is taken for this invoice's money (C27)."""
        if rate <= 0:
            return False
        price = (await self.quoter.quote(invoice.currency)).price
        return abs(rate - price) <= RATE_BAND * price

    async def _tell_foreign(
        self, unit: Unit, invoice: Invoice, payment_hash: str, amount_msat: int
    ) -> None:
        await self.rt.alarm(
            unit,
            f"foreign_money:{payment_hash}",
            f"{amount_msat // 1000} sats arrived for invoice {invoice.id}, which is "
            f"{invoice.status} with {format_fiat(invoice.amount_remaining_minor, invoice.currency)}"
            " left, by a payment request that this database does not know. Look into Stripe "
            "whether it was booked; if not, give it as credit.",
        )

    async def _hasten(self, transaction: Transaction) -> int:
        async with self.rt.unit() as unit:
            request = await payments.request_by_hash(unit.tx, transaction.payment_hash)
            if request is None or request.state is RequestState.SETTLED:
                return 0
            await unit.tx.execute("payments.look_up_now", id=request.id, now=unit.now)
            await unit.record(
                "request.look_up_now",
                tenant=request.tenant,
                subject=request.id,
                because="sweep",
            )
        return 1


def _names_invoice(transaction: Transaction) -> str | None:
    try:
        description = decode(transaction.bolt11 or "").description or ""
    except Bolt11Error:
        return None
    match = _INVOICE.search(description)
    return match[1] if match is not None else None
