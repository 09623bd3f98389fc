"""Tenants' wallets as they are: they pay, refuse, keep silent, pay late, and say anything."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from tests.sim.life import Life
from wallet.outcome import PayOutcome, Refused, Settled, Unknown
from wallet.ports import (
    Budget,
    LookupAnswer,
    NotFound,
    NotSent,
    PayReply,
    PublishAnswer,
    SealedRequest,
    Sent,
    Transaction,
    Unreachable,
    WalletError,
    WalletInfo,
)

if TYPE_CHECKING:
    from tests.sim.world import SimWorld

_SILENT = Unreachable("silent for 20 s")
REFUSALS = ("INSUFFICIENT_BALANCE", "QUOTA_EXCEEDED", "RATE_LIMITED", "RESTRICTED")
BEHAVIOURS = (
    "pays",
    "pays",
    "pays_silently",
    "refuses",
    "silent",
    "pays_late",
    "fails_then_pays",
    "fails",
    "no_preimage",
    "wrong_preimage",
    "pays_after_expiration",
    "holds",
    "lies",
    "pays_twice",
)


def sealed(world: SimWorld, bolt11: str, now: int, expiration: int) -> SealedRequest:
    """A signed pay request, as its text and the hash of that."""
    content = f"{bolt11} {now} {world.next_number()}"
    event_id = hashlib.sha256(content.encode()).hexdigest()
    return SealedRequest(event_id, content, "pay_invoice", "nip44_v2", now, expiration)


class OutsidePayer:
    """One tenant's wallet."""

    def __init__(self, world: SimWorld, tenant: str) -> None:
        self.world = world
        self.tenant = tenant
        self.behaviour = "pays"
        self.asleep_until = 0
        self.revoked = False
        self.seen: set[str] = set()
        # Dice of its own: what it says of payments leaves every other fate of the seed as it was.
        self.dice = random.Random(f"{world.seed} {len(world.wallets)} look-ups")
        self.methods = frozenset({"pay_invoice", "get_info", "get_balance"})
        if self.dice.random() < 0.7:
            self.methods |= {"lookup_invoice"}
        self.purse = random.Random(f"{world.seed} {len(world.wallets)} purse")
        self.told_msat: set[int] = set()
        self.silent_asks = 0
        if world.settings.preflight and self.purse.random() < 0.5:
            self.methods |= {"get_budget"}

    def receive(self, sealed: SealedRequest) -> None:
        """A pay request comes in from a relay."""
        if sealed.event_id in self.seen and not self.revoked and self.world.rng.random() < 0.5:
            # It knows the event, and says so with a word that is true of this copy only.
            self.world.count("wallet_refuses_second_copy")
            self._reply(sealed, Refused(self.dice.choice(REFUSALS), "already working on it"))
        if sealed.event_id in self.seen or self.revoked:
            return
        self.seen.add(sealed.event_id)
        payment_hash = sealed.event_json.split(" ")[0].removeprefix("lnbcrt1")
        if self.world.chaos and self.world.rng.random() < 0.1:
            # Paying is when an operator's small node falls over.
            self.world.count("payee_down_at_payment")
            down_s = self.world.rng.choice((600, 5400))
            until = self.world.clock.now() + down_s
            self.world.payee.down_until = max(self.world.payee.down_until, until)
        behaviour = self.behaviour
        if behaviour == "random":
            behaviour = self.world.rng.choice(BEHAVIOURS)
        self.world.count(f"wallet_{behaviour}")
        self.world.say(f"wallet of {self.tenant[:4]} {behaviour} on {payment_hash[:8]}")
        getattr(self, f"_{behaviour}")(sealed, payment_hash)

    def _pay(self, payment_hash: str, *, hold_s: int = 0) -> bool:
        payee = self.world.payees[self.world.ln[payment_hash].payee]
        return payee.pay(payment_hash, "nwc", hold_s=hold_s)

    def _reply(self, sealed: SealedRequest, outcome: PayOutcome) -> None:
        self.world.reply(PayReply(sealed.event_id, outcome))

    def _proof(self, payment_hash: str) -> Settled:
        return Settled(self.world.ln[payment_hash].preimage)

    def _pays(self, sealed: SealedRequest, payment_hash: str) -> None:
        if self._pay(payment_hash):
            self._reply(sealed, self._proof(payment_hash))
        else:
            self._reply(sealed, Unknown("PAYMENT_FAILED", "no route"))

    def _pays_twice(self, sealed: SealedRequest, payment_hash: str) -> None:
        """A custodian pays the same bolt11 again between its own users, and says so again. Nobody
        but it can give that back; it must not count twice here."""
        self._pays(sealed, payment_hash)

        def again() -> None:
            invoice = self.world.ln[payment_hash]
            if invoice.state == "settled" and invoice.paid_by == "nwc":
                invoice.again += 1
                self._reply(sealed, self._proof(payment_hash))
                self.world.notify(payment_hash)

        self.world.after(self.world.rng.choice((2, 60, 7200)), again)

    def _pays_silently(self, sealed: SealedRequest, payment_hash: str) -> None:
        self._pay(payment_hash)

    def _refuses(self, sealed: SealedRequest, payment_hash: str) -> None:
        self.world.ln[payment_hash].refused = True
        self._reply(sealed, Refused(self.world.rng.choice(REFUSALS), "no"))

    def _silent(self, sealed: SealedRequest, payment_hash: str) -> None:
        return

    def _late(self, sealed: SealedRequest, payment_hash: str, at: int) -> None:
        def act() -> None:
            if self._pay(payment_hash) and self.world.rng.random() < 0.5:
                self._reply(sealed, self._proof(payment_hash))

        self.world.after(max(1, at - self.world.clock.now()), act)

    def _pays_late(self, sealed: SealedRequest, payment_hash: str) -> None:
        expires_at = self.world.ln[payment_hash].bolt11.expires_at
        self._late(sealed, payment_hash, self.world.rng.randint(self.world.clock.now(), expires_at))

    def _pays_after_expiration(self, sealed: SealedRequest, payment_hash: str) -> None:
        invoice = self.world.ln[payment_hash]
        self._late(
            sealed,
            payment_hash,
            self.world.rng.randint(sealed.expiration + 1, invoice.accepts_until),
        )

    def _fails_then_pays(self, sealed: SealedRequest, payment_hash: str) -> None:
        self._reply(sealed, Unknown(self.world.rng.choice(("PAYMENT_FAILED", "INTERNAL")), "no"))
        self._pays_late(sealed, payment_hash)

    def _fails(self, sealed: SealedRequest, payment_hash: str) -> None:
        self._reply(sealed, Unknown("PAYMENT_FAILED", "no route"))

    def _no_preimage(self, sealed: SealedRequest, payment_hash: str) -> None:
        if self.world.rng.random() < 0.5:
            self._pay(payment_hash)
        self._reply(sealed, Unknown("NO_PREIMAGE", "success without a preimage"))

    def _wrong_preimage(self, sealed: SealedRequest, payment_hash: str) -> None:
        self._reply(sealed, Unknown("WRONG_PREIMAGE", "it does not hash to the payment hash"))
        if self.world.rng.random() < 0.5:
            self._pays_late(sealed, payment_hash)

    def _holds(self, sealed: SealedRequest, payment_hash: str) -> None:
        self._pay(payment_hash, hold_s=self.world.rng.choice((30, 900, 7200)))

    def _lies(self, sealed: SealedRequest, payment_hash: str) -> None:
        """It refuses and pays all the same: then only the home of the money can be asked for."""
        invoice = self.world.ln[payment_hash]
        invoice.tainted = "its payer refused and paid"
        self._reply(sealed, Refused("INSUFFICIENT_BALANCE", "no"))
        self.world.after(self.world.rng.randint(1, 300), lambda: self._pay(payment_hash))

    # --- what it says it has, which proves nothing and moves nothing ------------------------------

    def balance(self) -> int | WalletError | Unreachable:
        answer: int | WalletError | Unreachable = self.purse.choice(
            (1_000_000_000, 1_000_000_000, 0, 3_000_000, WalletError("INTERNAL", "busy"), _SILENT)
        )
        self.world.count("balance_told" if isinstance(answer, int) else "balance_not_told")
        if isinstance(answer, int):
            self.told_msat.add(answer)
        return answer

    def budget(self) -> Budget | WalletError | Unreachable | None:
        total = self.purse.choice((0, 2_000_000, 900_000_000))
        used = self.purse.choice((0, total // 2, total, 2 * total))
        renews_at = self.purse.choice((None, self.world.clock.now() + 3 * 86_400))
        answer = self.purse.choice(
            (None, _SILENT, WalletError("RESTRICTED", "no"), Budget(used, total, renews_at))
        )
        self.world.count("budget_told" if isinstance(answer, Budget) else "budget_not_told")
        if isinstance(answer, Budget):
            self.told_msat |= {total, max(0, total - used)}
        return answer

    # --- what it says of a payment when it is asked -------------------------------------------

    def lookup(self, payment_hash: str) -> LookupAnswer:
        """Honestly, in half of the cases; else what wallets were seen to say, true or not."""
        if "lookup_invoice" not in self.methods:
            self.world.violate("M8", f"the wallet of {self.tenant[:4]} never listed look-ups")
        if self.revoked:
            self.world.count("payer_lookup_revoked")
            return WalletError("UNAUTHORIZED", "revoked")
        if self.world.clock.now() < self.asleep_until:
            self.world.count("payer_lookup_silent")
            return Unreachable("silent for 20 s")
        invoice = self.world.ln[payment_hash]
        is_paid = invoice.state == "settled" and invoice.paid_by == "nwc"
        if not self.world.chaos or self.dice.random() < 0.5:
            self.world.count("payer_lookup_paid" if is_paid else "payer_lookup_unpaid")
            if is_paid:
                return self._told(payment_hash, "settled", preimage=invoice.preimage)
            return self._told(payment_hash, "pending") if invoice.sent else NotFound()
        return self._said_falsely(payment_hash, invoice.preimage, is_paid=is_paid)

    def _said_falsely(self, payment_hash: str, preimage: str, *, is_paid: bool) -> LookupAnswer:
        """Whatever it did: none of these may move anything. The true preimage stands only in what
        shows it for unpaid ones too."""
        wrong = hashlib.sha256(preimage.encode()).hexdigest()
        fault, answer = self.dice.choice(
            (
                ("silent", Unreachable("silent for 20 s")),
                ("error", WalletError("INTERNAL", "busy")),
                ("not_found", NotFound()),
                ("no_preimage", self._told(payment_hash, "settled")),
                ("wrong_preimage", self._told(payment_hash, "settled", preimage=wrong)),
                ("failed", self._told(payment_hash, "failed", preimage="00" * 32)),
                ("pending", self._told(payment_hash, "pending")),
                (
                    "incoming",
                    self._told(payment_hash, "settled", "incoming", preimage=preimage),
                ),
                ("other_hash", self._told(wrong, "settled", preimage=preimage)),
            )
        )
        self.world.count(f"payer_lookup_{fault}")
        if is_paid:
            self.world.count("payer_lookup_hides_paid")
        return answer

    def _told(
        self,
        payment_hash: str,
        state: str,
        direction: Literal["incoming", "outgoing"] = "outgoing",
        *,
        preimage: str | None = None,
    ) -> Transaction:
        settled_at = self.world.clock.now() if state in ("settled", "failed") else None
        return Transaction(
            payment_hash, direction, state, None, settled_at, None, None, preimage=preimage
        )


class LifePayer:
    """The wallet seen by one life of the process (`wallet.ports.Payer`)."""

    def __init__(self, life: Life, outside: OutsidePayer) -> None:
        self.life = life
        self.outside = outside
        self.world = life.world

    async def probe(self) -> WalletInfo | WalletError | Unreachable:
        async def ask() -> WalletInfo | WalletError | Unreachable:
            if self.outside.revoked:
                return WalletError("UNAUTHORIZED", "revoked")
            if self.world.clock.now() < self.outside.asleep_until:
                self.world.count("probe_silent")
                self.outside.silent_asks += 1
                return Unreachable("silent for 20 s")
            return WalletInfo(methods=self.outside.methods)

        answer: WalletInfo | WalletError | Unreachable = await self.life.call("payer.probe", ask)
        return answer

    async def get_balance(self) -> int | WalletError | Unreachable:
        if not self.world.settings.preflight:
            return 1_000_000_000

        async def ask() -> int | WalletError | Unreachable:
            return self.outside.balance()

        answer: int | WalletError | Unreachable = await self.life.call("payer.get_balance", ask)
        return answer

    async def get_budget(self) -> Budget | WalletError | Unreachable | None:
        async def ask() -> Budget | WalletError | Unreachable | None:
            return self.outside.budget()

        answer: Budget | WalletError | Unreachable | None = await self.life.call(
            "payer.get_budget", ask
        )
        return answer

    def prepare_pay(self, bolt11: str, *, now: int, expiration: int) -> SealedRequest:
        return sealed(self.world, bolt11, now, expiration)

    async def publish_pay(
        self, request: SealedRequest, *, permit: Callable[[], bool]
    ) -> PublishAnswer:
        await self.life.point("publish called")
        rng = self.world.rng
        if self.world.chaos and rng.random() < 0.15:
            self.world.count("publish_slow")
            await self._wait(rng.choice((3, 20, 45)))
        if self.world.chaos and rng.random() < 0.08:
            self.world.count("publish_not_sent")
            return NotSent("no open socket")
        if not permit():
            self.world.count("publish_not_permitted")
            return NotSent("too late")
        self.world.rules.on_publish(self.life, self.outside.tenant, request)
        if self.world.chaos and rng.random() < 0.08:
            # Written, and lost by the relay: indistinguishable from a silent wallet.
            self.world.count("publish_dropped")
        else:
            self.world.after(rng.choice((0, 0, 1, 5)), lambda: self.outside.receive(request))
        accepted: Any = True
        if self.world.chaos and rng.random() < 0.2:
            self.world.count("publish_no_ok")
            accepted = None
            await self._wait(5)
        await self.life.point("published")
        return Sent("wss://relay.example", accepted)

    async def resend_pay(
        self, request: SealedRequest, earlier: Sent, *, permit: Callable[[], bool]
    ) -> PublishAnswer:
        await self.life.point("resend called")
        rng = self.world.rng
        if self.world.chaos and rng.random() < 0.3:
            await self._wait(rng.choice((1, 10, 45)))
        if not permit():
            self.world.count("resend_not_permitted")
            return NotSent("too late")
        self.world.rules.on_resend(self.life, self.outside.tenant, request)
        self.world.after(rng.choice((0, 1, 5)), lambda: self.outside.receive(request))
        await self.life.point("resent")
        return Sent("wss://other.example", True)

    async def _wait(self, seconds: int) -> None:
        await asyncio.sleep(seconds)
        await self.life.point("publish waiting")

    async def lookup_outgoing(self, payment_hash: str) -> LookupAnswer:
        await self.life.point("payer lookup")
        if self.world.chaos and self.outside.dice.random() < 0.1:
            self.world.count("payer_lookup_slow")
            await asyncio.sleep(self.outside.dice.choice((3, 20, 90)))
        answer = self.outside.lookup(payment_hash)
        await self.life.point("payer looked up")
        return answer
