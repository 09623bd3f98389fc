"""Issues one payment request: quote, make, check, store, then note its hash at Stripe (M1)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from billing.errors import NoQuote, PurserError
from billing.model import Connection, Invoice, PaymentRequest, Purpose, RequestState
from billing.money import fiat_to_msat
from billing.pace import PayeePace, is_rate_limited
from billing.payments import AUTOMATIC_EXPIRY_S, MARGIN_S, SHOWN_EXPIRY_S, is_beyond_margin
from billing.ports import Payees, Quoter, StripeGateway
from billing.rails.card_note import foreign_cards
from billing.rates import Rate
from billing.stated_relays import state_relays
from billing.store import invoices, operations, payments, tenants
from billing.unit import Runtime
from wallet.bolt11 import Bolt11

HASH_KEY_PREFIX: Final = "purser_ln_"
"""Metadata keys are at most 40 characters: the prefix and the first 24 hex of the hash name it,
the value holds the whole hash and all that a lost database needs."""
EXPIRY_S: Final = {Purpose.AUTOMATIC: AUTOMATIC_EXPIRY_S, Purpose.SHOWN: SHOWN_EXPIRY_S}
NOTED_KEPT: Final = 20
"""Dead entries kept on an invoice: Stripe takes 50 metadata keys on an object."""
MAKE_WITHIN_S: Final = 60
"""From asking for a quote to our wallet's answer: a laptop that slept anywhere in between holds a
rate of yesterday, which would stand for another hour (C27). Wallets answer within 20 s, or not."""
DESCRIPTION_MAX: Final = 120
"""Wallets cut longer descriptions; the invoice id in it rebuilds a lost database."""


@dataclass(frozen=True, slots=True)
class Issued:
    """Stored, and its hash stands at Stripe: it may be sent or shown."""

    request: PaymentRequest


@dataclass(frozen=True, slots=True)
class NotIssued:
    """Nothing that anybody could pay exists; `why` is for operators."""

    why: str


IssueAnswer: TypeAlias = Issued | NotIssued


@dataclass(frozen=True, slots=True)
class NotedRequest:
    """What an invoice's metadata says of one payment request: enough to rebuild a lost row."""

    payment_hash: str
    expires_at: int
    margin_s: int
    amount_msat: int
    amount_minor: int
    rate: str
    payee: str = ""
    """Public key of the wallet that issued it; notes of older versions do not name it."""


def _key_of(request: PaymentRequest) -> str:
    return f"{HASH_KEY_PREFIX}{request.payment_hash[:24]}"


def metadata_of(request: PaymentRequest, payee: str) -> dict[str, str]:
    """The invoice metadata entry for this request: one key per hash (M1). `payee`: public key of
    the wallet that issued it, since no other can say that it was not paid."""
    values = (
        request.payment_hash,
        request.expires_at,
        request.margin_s,
        request.amount_msat,
        request.amount_minor,
        request.rate,
        payee,
    )
    return {_key_of(request): ":".join(str(value) for value in values)}


_NOTED = re.compile(
    r"([0-9a-f]{64}):(\d{1,12}):(\d{1,8}):(\d{1,18}):(\d{1,15}):(\d{1,15}(?:\.\d{1,40})?)"
    r"(?::([0-9a-f]{64}))?"
)


def noted_in(metadata: Mapping[str, str]) -> tuple[NotedRequest, ...]:
    """Every entry that reads well; others are somebody else's words."""
    found: list[NotedRequest] = []
    for key, value in sorted(metadata.items()):
        match = _NOTED.fullmatch(value) if key.startswith(HASH_KEY_PREFIX) else None
        if match is not None:
            payment_hash, expires_at, margin_s, amount_msat, amount_minor, rate, payee = (
                match.groups(default="")
            )
            found.append(
                NotedRequest(
                    payment_hash,
                    int(expires_at),
                    int(margin_s),
                    int(amount_msat),
                    int(amount_minor),
                    rate,
                    payee,
                )
            )
    return tuple(found)


def _stale_entries(requests: Sequence[PaymentRequest], *, now: int) -> dict[str, str]:
    """Empty values, which unset a key, for the oldest entries that nothing can come of."""
    over = [r for r in requests if r.noted_at is not None and is_beyond_margin(r, now=now)]
    dead = [r for r in over if r.state is RequestState.DEAD][:-NOTED_KEPT]
    return {_key_of(request): "" for request in dead}


@dataclass(slots=True)
class Issuer:
    """Makes payment requests on the operator's wallet."""

    rt: Runtime
    stripe: StripeGateway
    payees: Payees
    quoter: Quoter
    payee_kind: str
    pace: PayeePace = field(default_factory=PayeePace)
    """Shared with whoever looks up on the same wallet."""
    _made_here: dict[str, int] = field(default_factory=dict)
    """Request id -> its expiry, in memory on purpose."""

    def is_of_this_life(self, request: PaymentRequest) -> bool:
        """Made by this process. What an earlier one made may be in a backup that another bot runs
        on, and be paid by that one any moment: the note at Stripe is the same for both (M3)."""
        return request.id in self._made_here

    @property
    def margin_s(self) -> int:
        """How long after expiry this kind of payee may still take money (M2)."""
        return MARGIN_S[self.payee_kind]

    async def issue(self, invoice: Invoice, purpose: Purpose) -> IssueAnswer:
        """A new open request for what remains of this invoice; the caller has re-fetched it.

        Raises `Paced`, before anything was made, where our own wallet is not to be asked now.
        """
        asked_at = self.rt.clock.now()
        try:
            rate = await self.quoter.quote(invoice.currency)
        except NoQuote as error:
            return NotIssued(error.what)
        amount_msat = fiat_to_msat(invoice.amount_remaining_minor, invoice.currency, rate.price)
        async with self.rt.unit() as unit:
            connection = await tenants.payee(unit.tx)
        if connection is None:
            return NotIssued("no payee is configured")
        made = await self._make(invoice, connection, amount_msat, EXPIRY_S[purpose])
        if isinstance(made, NotIssued):
            return made
        now = self.rt.clock.now()
        if now - asked_at > MAKE_WITHIN_S:
            # Nobody was given it; the next visit asks for a rate of its own.
            return NotIssued("our own wallet took so long that the rate is old")
        request = payments.new_request(
            request_id=self.rt.ids.new("req"),
            invoice_id=invoice.id,
            tenant=invoice.tenant,
            payee_connection_id=connection.id,
            purpose=purpose,
            payment_hash=made.payment_hash,
            bolt11=made.text,
            amount_msat=amount_msat,
            amount_minor=invoice.amount_remaining_minor,
            currency=invoice.currency,
            rate=str(rate.price),
            rate_sources=json.dumps(list(rate.sources)),
            rate_at=rate.observed_at,
            now=now,
            # A payee whose clock is slow takes money that much longer than its bolt11 says.
            expires_at=max(made.expires_at, now + EXPIRY_S[purpose]),
            margin_s=self.margin_s,
        )
        self._made_here = {i: end for i, end in self._made_here.items() if end > now}
        self._made_here[request.id] = request.expires_at
        return await self._store(request, rate)

    async def _store(self, request: PaymentRequest, rate: Rate) -> IssueAnswer:
        """Intent before effect (M1): the row, then the note at Stripe."""
        async with self.rt.unit() as unit:
            if await payments.request_by_hash(unit.tx, request.payment_hash) is not None:
                return NotIssued("our wallet handed out a payment hash that it used before")
            await payments.insert_request(unit.tx, request)
            await unit.record(
                "request.open",
                tenant=request.tenant,
                subject=request.id,
                invoice=request.invoice_id,
                purpose=request.purpose.value,
                amount_msat=request.amount_msat,
                amount_minor=request.amount_minor,
                currency=request.currency,
                rate=request.rate,
                rate_sources=list(rate.sources),
                payment_hash=request.payment_hash,
                expires_at=request.expires_at,
            )
        await self.note(request)
        return Issued(request)

    async def _make(
        self, invoice: Invoice, connection: Connection, amount_msat: int, expiry_s: int
    ) -> Bolt11 | NotIssued:
        payee = await self.payees.payee(connection)
        description = f"{invoice.number or 'Invoice'} ({invoice.id})"[:DESCRIPTION_MAX]
        self.pace.make(invoice, self.rt.clock.now())
        answer = await payee.make_invoice(amount_msat, description, expiry_s)
        if isinstance(answer, Bolt11):
            self.pace.made()
            return answer
        if is_rate_limited(answer):
            self.pace.make_limited(invoice, self.rt.clock.now())
        reason = getattr(answer, "reason", None) or getattr(answer, "message", "no answer")
        return NotIssued(f"our own wallet made no payment request: {reason}")

    async def note(self, request: PaymentRequest) -> None:
        """Write its hash and expiry into the Stripe invoice, then remember that it stands there.

        Raises the gateway's errors; until it succeeds the request is neither sent nor shown.
        """
        async with self.rt.unit() as unit:
            operation = await operations.begin(unit.tx, self.rt, "note_hash", request.id)
            others = await payments.requests_of(unit.tx, request.invoice_id)
            payee = await tenants.connection(unit.tx, request.payee_connection_id)
            assert payee is not None
            noted = metadata_of(request, payee.wallet_pubkey)
            metadata = _stale_entries(others, now=unit.now) | noted
            metadata |= state_relays(await invoices.relays_of(unit.tx, request.invoice_id))
        try:
            view = await self.stripe.annotate_invoice(operation.id, request.invoice_id, metadata)
        except PurserError:
            # Noting twice is harmless, and a key that replays a 500 would block the invoice.
            async with self.rt.unit() as unit:
                await operations.finish(unit.tx, operation.id, "unclear", now=unit.now)
            raise
        ours = {other.payment_hash for other in others} | {request.payment_hash}
        async with self.rt.unit() as unit:
            cards = await foreign_cards(unit.tx, request.invoice_id, view.metadata)
        if cards or any(noted.payment_hash not in ours for noted in noted_in(view.metadata)):
            # Notes are taken one after the other: of two bots at least one sees the other's, and
            # leaves its own request to die unseen (M2).
            async with self.rt.unit() as unit:
                await operations.finish(unit.tx, operation.id, "not alone", now=unit.now)
            raise PurserError(request.invoice_id, "another bot noted a payment beside ours")
        async with self.rt.unit() as unit:
            await operations.finish(unit.tx, operation.id, "noted", now=unit.now)
            await unit.tx.execute("payments.note_request", id=request.id, now=unit.now)
            await unit.record(
                "request.noted",
                tenant=request.tenant,
                subject=request.id,
                invoice=request.invoice_id,
            )
