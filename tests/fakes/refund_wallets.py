"""The wallets at both ends of a refund: the tenant's, which asks, and ours, which pays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from billing.model import Connection
from tests.fakes.clock import FakeClock
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


class Hears(Protocol):
    async def pay_reply(self, reply: PayReply) -> None: ...


class Steps(Protocol):
    def step(self, what: str) -> None: ...


@dataclass
class StubRefundWallets:
    """`behaviour` of our spending wallet: pays, pays_silently, fails_then_pays (says
    PAYMENT_FAILED and pays), never (takes it and does nothing), refuses, not_sent. `asks` changes
    the amount the tenant's wallet asks for (K10)."""

    clock: FakeClock
    behaviour: str = "pays"
    spender_answers: bool = True
    tenant_answers: bool = True
    mute_lookups: bool = False
    asks: Callable[[int], int] = lambda amount_msat: amount_msat
    made: dict[str, Bolt11] = field(default_factory=dict)
    preimages: dict[str, str] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    paid: dict[str, int] = field(default_factory=dict)
    hears: Hears | None = None
    wire: Steps | None = None
    same_hash: bool = False

    def life(self, hears: Hears, wire: Any) -> None:
        """A new process listens; `wire` crashes it."""
        self.hears, self.wire = hears, wire

    def _step(self, what: str) -> None:
        if self.wire is not None:
            self.wire.step(what)

    async def spender(self, connection: Connection) -> Any:
        return self

    async def receiver(self, connection: Connection) -> Any:
        return self

    # --- the tenant's wallet --------------------------------------------------------------------

    async def make_invoice(
        self, amount_msat: int, description: str, expiry_s: int
    ) -> Bolt11 | Unreachable:
        self._step("before make_invoice")
        if not self.tenant_answers:
            return Unreachable("silent")
        number = 0 if self.same_hash else len(self.made)
        preimage = hashlib.sha256(f"refund {number}".encode()).digest()
        payment_hash = hashlib.sha256(preimage).hexdigest()
        self.preimages[payment_hash] = preimage.hex()
        self.made[payment_hash] = Bolt11(
            text=f"lnbcrt2{payment_hash}",
            network="bcrt",
            amount_msat=self.asks(amount_msat),
            timestamp=self.clock.now(),
            expiry_s=expiry_s,
            payment_hash=payment_hash,
            payee_pubkey="02" + "cd" * 32,
            description=description,
        )
        self._step("after make_invoice")
        return self.made[payment_hash]

    # --- our spending wallet --------------------------------------------------------------------

    async def probe(self) -> WalletInfo | Unreachable:
        self._step("before probe of the spender")
        if not self.spender_answers:
            return Unreachable("silent")
        return WalletInfo(methods=frozenset({"pay_invoice", "get_info", "lookup_invoice"}))

    def prepare_pay(self, bolt11: str, *, now: int, expiration: int) -> SealedRequest:
        event_id = hashlib.sha256(bolt11.encode()).hexdigest()
        return SealedRequest(event_id, bolt11, "pay_invoice", "nip44_v2", now, expiration)

    async def publish_pay(self, request: SealedRequest, *, permit: Any) -> PublishAnswer:
        self._step("before publish of a refund")
        if not permit() or self.behaviour == "not_sent":
            return NotSent("no open socket")
        payment_hash = request.event_json.removeprefix("lnbcrt2")
        self.written.append(payment_hash)
        outcome: PayOutcome | None = None
        if self.behaviour in ("pays", "pays_silently", "fails_then_pays"):
            self.paid[payment_hash] = self.paid.get(payment_hash, 0) + 1
        if self.behaviour == "pays":
            outcome = Settled(self.preimages[payment_hash])
        elif self.behaviour == "refuses":
            outcome = Refused("QUOTA_EXCEEDED", "budget used up")
        elif self.behaviour == "fails_then_pays":
            outcome = Unknown("PAYMENT_FAILED", "no route")
        self._step("after publish of a refund")
        if outcome is not None and self.hears is not None:
            await self.hears.pay_reply(PayReply(request.event_id, outcome))
        return Sent("wss://spender.example", True)

    async def lookup_outgoing(self, connection: Connection, payment_hash: str) -> LookupAnswer:
        self._step("before look-up of a refund")
        if self.mute_lookups:
            return Unreachable("silent")
        if payment_hash not in self.paid:
            return NotFound()
        return Transaction(
            payment_hash=payment_hash,
            direction="outgoing",
            state="settled",
            amount_msat=self.made[payment_hash].amount_msat,
            settled_at=self.clock.now(),
            created_at=None,
            expires_at=None,
            preimage=self.preimages[payment_hash],
        )
