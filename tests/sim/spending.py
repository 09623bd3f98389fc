"""Refunds seen from outside: the operator's spending wallet, and who asks it for money."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.sim.life import Life
from tests.sim.payers import sealed
from wallet.bolt11 import Bolt11
from wallet.outcome import PayOutcome, Refused, Settled, Unknown
from wallet.ports import (
    LookupAnswer,
    NotFound,
    NotSent,
    PayReply,
    PublishAnswer,
    SealedRequest,
    Sent,
    Transaction,
    Unreachable,
    WalletInfo,
)

if TYPE_CHECKING:
    from tests.sim.world import SimWorld

PREFIX = "lnbcrt2"
BEHAVIOURS = ("pays", "pays", "pays_silently", "fails_then_pays", "fails", "never", "refuses")


@dataclass
class RefundInvoice:
    """What a tenant's wallet asks of us."""

    bolt11: Bolt11
    preimage: str
    tenant: str
    refund_id: str = ""
    invoice_id: str = ""
    amount_minor: int = 0
    sent: list[str] = field(default_factory=list)
    paid_at: int | None = None


class OutsideSpender:
    """The operator's second wallet: it can pay, whatever it says about that."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.behaviour = "random"
        self.asked: dict[str, RefundInvoice] = {}
        self.down_until = 0

    # --- a tenant's wallet ----------------------------------------------------------------------

    def ask(self, tenant: str, amount_msat: int, description: str, expiry_s: int) -> Bolt11:
        preimage = hashlib.sha256(f"back {self.world.seed} {len(self.asked)}".encode()).digest()
        payment_hash = hashlib.sha256(preimage).hexdigest()
        bolt11 = Bolt11(
            text=f"{PREFIX}{payment_hash}",
            network="bcrt",
            amount_msat=amount_msat,
            timestamp=self.world.clock.now(),
            expiry_s=expiry_s,
            payment_hash=payment_hash,
            payee_pubkey="02" + "cd" * 32,
            description=description,
        )
        self.asked[payment_hash] = RefundInvoice(bolt11, preimage.hex(), tenant)
        return bolt11

    # --- paying ---------------------------------------------------------------------------------

    def receive(self, request: SealedRequest) -> None:
        """Our pay request comes in from a relay."""
        behaviour = self.behaviour
        if behaviour == "random":
            behaviour = self.world.rng.choice(BEHAVIOURS) if self.world.chaos else "pays"
        invoice = self.asked[request.event_json.split(" ")[0].removeprefix(PREFIX)]
        self.world.count(f"spender_{behaviour}")
        self.world.say(f"spender {behaviour} on refund {invoice.bolt11.payment_hash[:8]}")
        delay = 0 if behaviour != "fails_then_pays" else self.world.rng.choice((5, 600, 3000))
        if behaviour in ("pays", "pays_silently", "fails_then_pays"):
            self.world.after(delay, lambda: self._pay(invoice))
        outcome: PayOutcome | None = None
        if behaviour == "pays":
            outcome = Settled(invoice.preimage)
        elif behaviour in ("fails_then_pays", "fails"):
            outcome = Unknown("PAYMENT_FAILED", "no route")
        elif behaviour == "refuses":
            outcome = Refused("QUOTA_EXCEEDED", "the budget is used up")
        if outcome is not None:
            self.world.reply(PayReply(request.event_id, outcome))

    def _pay(self, invoice: RefundInvoice) -> None:
        if invoice.paid_at is not None or self.world.clock.now() > invoice.bolt11.expires_at:
            return
        invoice.paid_at = self.world.clock.now()
        self.world.say(f"LN we pay refund {invoice.bolt11.payment_hash[:8]}")

    async def lookup(self, payment_hash: str) -> LookupAnswer:
        if self.world.clock.now() < self.down_until:
            return Unreachable("silent")
        invoice = self.asked.get(payment_hash)
        if invoice is None or (invoice.paid_at is None and not invoice.sent):
            return NotFound()
        is_paid = invoice.paid_at is not None
        if not is_paid and self.world.rng.random() < 0.3:
            return NotFound()
        return Transaction(
            payment_hash=payment_hash,
            direction="outgoing",
            state="settled" if is_paid else "pending",
            amount_msat=invoice.bolt11.amount_msat,
            settled_at=invoice.paid_at,
            created_at=invoice.bolt11.timestamp,
            expires_at=invoice.bolt11.expires_at,
            preimage=invoice.preimage if is_paid else None,
        )


class LifeSpender:
    """The spending wallet seen by one life (`wallet.ports.Payer`)."""

    def __init__(self, life: Life, outside: OutsideSpender) -> None:
        self.life = life
        self.outside = outside
        self.world = life.world

    async def probe(self) -> WalletInfo | Unreachable:
        async def ask() -> WalletInfo | Unreachable:
            if self.world.clock.now() < self.outside.down_until:
                return Unreachable("silent")
            return WalletInfo(methods=frozenset({"pay_invoice", "get_info", "lookup_invoice"}))

        answer: WalletInfo | Unreachable = await self.life.call("spender.probe", ask)
        return answer

    def prepare_pay(self, bolt11: str, *, now: int, expiration: int) -> SealedRequest:
        return sealed(self.world, bolt11, now, expiration)

    async def publish_pay(
        self, request: SealedRequest, *, permit: Callable[[], bool]
    ) -> PublishAnswer:
        await self.life.point("publish refund")
        rng = self.world.rng
        if self.world.chaos and rng.random() < 0.1:
            self.world.count("refund_publish_slow")
            await asyncio.sleep(rng.choice((3, 45)))
            await self.life.point("publish refund waiting")
        if not permit():
            self.world.count("refund_not_permitted")
            return NotSent("too late")
        self.world.rules.on_refund(request)
        if self.world.chaos and rng.random() < 0.1:
            self.world.count("refund_dropped")
        else:
            self.world.after(rng.choice((0, 1, 5)), lambda: self.outside.receive(request))
        await self.life.point("published refund")
        return Sent("wss://relay.example", True)

    async def lookup_outgoing(self, payment_hash: str) -> LookupAnswer:
        answer: LookupAnswer = await self.life.call(
            "spender.lookup", lambda: self.outside.lookup(payment_hash)
        )
        return answer

    async def get_balance(self) -> int:
        return 1_000_000_000

    async def get_budget(self) -> None:
        return None


class Receiver:
    """A tenant's wallet, asked for a payment request to itself (`wallet.ports.Receiver`)."""

    def __init__(self, life: Life, wallet: Any) -> None:
        self.life = life
        self.wallet = wallet
        self.world = life.world

    async def make_invoice(
        self, amount_msat: int, description: str, expiry_s: int
    ) -> Bolt11 | Unreachable:
        async def make() -> Bolt11 | Unreachable:
            wallet, world = self.wallet, self.world
            if wallet.revoked or world.clock.now() < wallet.asleep_until:
                world.count("refund_not_asked_for")
                return Unreachable("silent")
            if world.chaos and world.rng.random() < 0.1:
                world.count("refund_asks_too_much")
                return world.spender.ask(wallet.tenant, amount_msat * 10, description, expiry_s)
            return world.spender.ask(wallet.tenant, amount_msat, description, expiry_s)

        answer: Bolt11 | Unreachable = await self.life.call("receiver.make_invoice", make)
        return answer
