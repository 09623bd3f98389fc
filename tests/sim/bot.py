"""Puts the real parts of billing to work in one life of the process, as `bot.build` does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from billing.accounts import Accounts
from billing.cards import CardKeeper
from billing.collection import Collector
from billing.connections import ConnectionBook, Prober, WalletCommands
from billing.desk import Desk, Policy
from billing.dunning_clock import Heartbeat
from billing.dunning_end import SubscriptionEnder
from billing.dunning_evidence import Investigator
from billing.dunning_worker import Dunner
from billing.errors import PurserError
from billing.events import EventWorker
from billing.handlers import Handlers
from billing.lease import RENEW_EVERY_S, Lease
from billing.mass_failure import FailureWatch
from billing.model import (
    Connection,
    ConnectionRole,
    ConnectionState,
    PaymentRequest,
    Rail,
)
from billing.observations import observe_request, operator_reading
from billing.orders import Orders
from billing.outbox import OutboxWorker
from billing.pace import PayeePace
from billing.payer_lookups import PayerLookups
from billing.payer_replies import Witness
from billing.payments import is_beyond_margin
from billing.plan_desk import PlanDesk
from billing.plan_worker import PlanWorker
from billing.preflight import Preflight
from billing.promises import Promises
from billing.rails.card import CardRail
from billing.rails.credit import CreditRail
from billing.rails.issue import Issuer
from billing.rails.manual import ManualRail
from billing.rails.nwc import NwcRail
from billing.rate_book import RateBook
from billing.rate_watch import RateWatch
from billing.rebuild import Gated, Rebuilder
from billing.reconcile import Reconciler
from billing.refund_desk import RefundDesk
from billing.refund_lightning import LightningRefunds
from billing.refund_memory import RefundMemory
from billing.refund_worker import RefundWorker
from billing.refunds import Refund, RefundState, RefundWay, undecided_until
from billing.relays import RelayKeeper, tell_again
from billing.resolver import Resolver
from billing.resumes import Resumes
from billing.settlements import Placer
from billing.store import refunds, tenants
from billing.store.engine import Tx
from billing.store.vault import Key, KeyRing, Vault
from billing.subscription_changes import Changer
from billing.subscription_sync import SubscriptionSync
from billing.sweep import CURSOR as SWEEP_CURSOR
from billing.sweep import EVERY_S as SWEEP_EVERY_S
from billing.sweep import Sweeper
from billing.unit import Runtime, Unit
from tests.sim.due import IS_DUE, is_preflight_due
from tests.sim.life import Life, Port
from tests.sim.payers import LifePayer
from tests.sim.spending import LifeSpender, Receiver
from wallet.ports import LookupAnswer

OPERATOR = "0e" * 32
MONEY = ("events", "collection", "resolver", "payer look-ups", "settlements", "prober")
"""What a second process on a copy does here. It also fights over relays, seats and messages, which
docs/operations.md says; money it must never move twice."""
REBUILD_S = 30
"""As `bot.app` waits between two tries to learn what is open."""
BEAT_S = 3 * 3600
"""While somebody owes, a running bot looks around this often: in production far more often."""
RECONCILE_AT_LEAST_S = 10 * 86400
RECONCILE_RETRY_S = 6 * 3600


class SharedLease(Lease):
    """Of processes that all reach the database, as on PostgreSQL: no lock of a file keeps the
    second one away, so that it waits for the lease (simulation seeds 1174, 7495)."""

    life: Life

    def is_alone_on_its_file(self, tx: Tx) -> bool:
        del tx
        life = self.life
        others = (bot.life for bot in life.world.living() if bot.life is not life)
        return all(other.connection is not life.connection for other in others)


class Bot:
    """One life with everything in it; `start` returns False while another one has the lease."""

    def __init__(self, life: Life) -> None:
        world = life.world
        self.life = life
        self.world = world
        self.lease = SharedLease(life.engine, world.clock, life.name)
        self.lease.life = life
        self.rt = Runtime(
            life.engine,
            world.clock,
            world.ids,
            life.wakeups,
            self.lease,
            (OPERATOR,),
            world.catalogue.free_ids,
            world.catalogue.prices,
        )
        self.stripe: Any = Port(life, "stripe", world.stripe.gateway)
        self.witness = Witness(self.rt)
        self.desk = Desk(self.rt, Policy(None))
        self.orders = Orders(self.desk, world.catalogue, world.settings.stop)
        self.accounts = Accounts(self.desk, world.timeline)
        self.plan_desk = PlanDesk(self.desk, world.catalogue, world.settings.provision)
        self.resumes = Resumes(self.desk, world.catalogue)
        self.promises = Promises(self.desk, world.timeline)
        book = ConnectionBook(
            self.rt, Vault(KeyRing((Key("k1", bytes(32)),)), world.ids), allow_private=True
        )
        self.wallets = WalletCommands(self.desk, book)
        self.is_working = False
        self.reconciled_at = 0
        self._rebuild_at = 0

    # --- ports Payees, Payers, PayeeLookup ------------------------------------------------------

    async def payee(self, connection: Connection) -> Any:
        return Port(self.life, "payee", self.world.payee_of(connection.wallet_pubkey))

    async def payer(self, connection: Connection) -> Any:
        return LifePayer(self.life, self.world.payer_of(connection.wallet_pubkey))

    async def spender(self, connection: Connection) -> Any:
        return LifeSpender(self.life, self.world.spender)

    async def receiver(self, connection: Connection) -> Any:
        return Receiver(self.life, self.world.payer_of(connection.wallet_pubkey))

    async def lookup_outgoing(self, connection: Connection, payment_hash: str) -> LookupAnswer:
        if connection.role is ConnectionRole.PAYER:
            payer: LifePayer = await self.payer(connection)
            return await payer.lookup_outgoing(payment_hash)
        return await LifeSpender(self.life, self.world.spender).lookup_outgoing(payment_hash)

    async def lookup(self, connection: Connection, payment_hash: str) -> LookupAnswer:
        payee = await self.payee(connection)
        answer: LookupAnswer = await payee.lookup_invoice(payment_hash)
        return answer

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the lease and go to work; else try again at the next `tick`."""
        if not await self.lease.take():
            return
        self.world.rules.on_lease(self.life)
        async with self.rt.unit() as unit:
            known = await tenants.payee(unit.tx)
            if known is None or known.wallet_pubkey != self.world.payee.key:
                await self._configure_payees(unit)
            if await refunds.spender(unit.tx) is None:
                await unit.tx.execute(
                    "refunds.insert_spender",
                    id=self.world.ids.new("conn"),
                    sealed_uri="sealed",
                    wallet_pubkey="ef" * 32,
                    masked="nwc ef…",
                    created_at=unit.now,
                )
        self.is_working = True
        self._put_to_work()
        self.life.spawn("lease", self._keep_lease())
        self.life.spawn("reconcile rarely", self._reconcile_rarely())

    async def _configure_payees(self, unit: Unit) -> None:
        """As `ConnectionBook.configure_payee` does at a start with another connection. Wallets that
        an older database has not heard of have their start too, as the alarm asks."""
        for payee in self.world.payees:
            is_known = await unit.tx.fetch_one(
                Connection, "connections.payee_by_key", wallet_pubkey=payee.key
            )
            if is_known is None or payee is self.world.payee:
                await unit.tx.execute("connections.end_payee", now=unit.now)
                await tenants.insert_connection(unit.tx, self._payee_row(payee.key))

    def _payee_row(self, wallet_pubkey: str) -> Connection:
        return Connection(
            id=self.world.ids.new("conn"),
            role=ConnectionRole.PAYEE,
            tenant=None,
            sealed_uri="sealed",
            wallet_pubkey=wallet_pubkey,
            masked="nwc cd…",
            encryption="nip44_v2",
            state=ConnectionState.ACTIVE,
            methods=None,
            probed_at=None,
            probe_due_at=None,
            problem=None,
            created_at=self.world.clock.now(),
            ended_at=None,
        )

    def _put_to_work(self) -> None:
        rt, world, stripe = self.rt, self.world, self.stripe
        sources: Any = [Port(self.life, "rates", source) for source in world.market.sources]
        self.rates = RateBook(sources, world.clock)
        pace = PayeePace()
        issuer = Issuer(rt, stripe, self, self.rates, "lnd", pace)
        rails = tuple(Rail(name) for name in world.rails)
        collector = Collector(
            rt,
            stripe,
            issuer,
            NwcRail(rt, self, issuer),
            CardRail(rt, stripe),
            ManualRail(rt, issuer),
            CreditRail(rt, stripe),
            rails,
        )
        host: Any = Port(self.life, "host", world.host)
        courier: Any = Port(self.life, "courier", world.courier)
        self.reconciler = Reconciler(rt, stripe, world.catalogue)
        settings = world.settings
        sync = SubscriptionSync(
            rt,
            stripe,
            world.catalogue,
            Changer(rt, stripe, settings.days_until_due),
            email_domain=settings.email_domain,
            provision=settings.provision,
            stop=settings.stop,
        )
        planner = PlanWorker(rt, sync.plan_orders.pricer, world.catalogue, settings.provision)
        lightning = LightningRefunds(rt, self, self, RefundMemory(rt, stripe))
        self.refund_desk = RefundDesk(rt, stripe, self.rates)
        resolver, sweeper = Resolver(rt, self, pace), Sweeper(rt, self, self.rates)
        self.rebuilder = Rebuilder(rt, stripe, resolver, sweeper, self.reconciler.subscriptions)
        self.life.work("rebuild", self.rebuild, self._is_to_rebuild)
        for name, gated in (
            ("events", EventWorker(rt, Handlers(rt, stripe, world.catalogue), livemode=False)),
            ("subscriptions", sync),
            ("cards", CardKeeper(rt, stripe)),
            ("plans", planner),
            ("dunning", self._dunner()),
            ("collection", collector),
            ("settlements", Placer(rt, stripe)),
            ("refunds", RefundWorker(rt, stripe, lightning)),
            ("relays", RelayKeeper(rt, host, world.catalogue, "relays.example")),
        ):
            if not self.life.is_on_copy or name in MONEY:
                self.life.work(name, Gated(gated, self.rebuilder).run_once, IS_DUE[name])
        for name, worker in (
            ("inbound", self),
            ("resolver", resolver),
            ("payer look-ups", PayerLookups(rt, self)),
            ("outbox", OutboxWorker(rt, courier)),
            ("prober", Prober(rt, self, self)),
        ):
            if not self.life.is_on_copy or name in MONEY:
                self.life.work(name, worker.run_once, IS_DUE.get(name) or self._was_spoken_to)
        if settings.preflight and not self.life.is_on_copy:
            notice_days = world.timeline.notice_days
            preflight = Preflight(
                rt,
                stripe,
                self,
                self.rates,
                world.catalogue,
                notice_days=notice_days,
                quiet=world.timeline.quiet,
            )
            self.life.work(
                "preflight",
                Gated(preflight, self.rebuilder).run_once,
                lambda: is_preflight_due(self.life.connection, world.clock.now(), notice_days),
            )
        self.life.work("sweep", sweeper.run_once, self._is_to_sweep)
        self.life.work("rates", RateWatch(rt, self.rates, "usd").run_once, self._is_rate_watched)

    def _dunner(self) -> Dunner:
        rt, stripe, world = self.rt, self.stripe, self.world
        self.life.spawn("beat", self._beat())
        return Dunner(
            rt,
            # Gaps between looks count as far as this world makes them.
            Heartbeat(rt, stripe, self, self.rates, "usd", away_after_s=BEAT_S + 3600),
            Investigator(rt, stripe, self, "usd"),
            SubscriptionEnder(rt, stripe, world.catalogue),
            FailureWatch(rt),
            self.rates,
            world.timeline,
        )

    async def _beat(self) -> None:
        """Time is counted while the bot runs: it wakes by itself as long as somebody owes."""
        owing = "SELECT 1 FROM dunning_windows WHERE closed_at IS NULL"
        while True:
            await asyncio.sleep(BEAT_S)
            await self.life.point("beat")
            if self.life.connection.execute(owing).fetchone() is not None:
                self.life.wakeups.changed()

    def _was_spoken_to(self) -> bool:
        return bool(self.world.said)

    def _is_to_rebuild(self) -> bool:
        is_wanted = not self.rebuilder.done or self._cursor("rebuild_later") not in ("", "[]")
        return is_wanted and self.world.clock.now() >= self._rebuild_at

    def _is_to_sweep(self) -> bool:
        swept = self._cursor(SWEEP_CURSOR)
        return not swept or self.world.clock.now() - int(swept) >= SWEEP_EVERY_S

    def _is_rate_watched(self) -> bool:
        return bool(self._cursor("rates:usd")) or self.rates.refused("usd") is not None

    def _cursor(self, name: str) -> str:
        sql = "SELECT value FROM cursors WHERE name = ?"
        row = self.life.connection.execute(sql, (name,)).fetchone()
        return "" if row is None else str(row[0])

    async def rebuild(self, now: int) -> int:
        """As `bot.app` does it: again until nothing is unknown, then the gated workers look."""
        is_first = not self.rebuilder.done
        try:
            taken = await self.rebuilder.run_once(now)
        except PurserError as error:
            self.world.count("rebuild_waits")
            self.world.say(f"rebuild waits: {error}")
            # Not woken by what happens, as in production (simulation seed 3600).
            self._rebuild_at = now + REBUILD_S
            return 0
        if taken:
            self.world.count("rebuild_took_up", taken)
        if is_first:
            self.rt.wakeups.changed()
            self.life.spawn("reconcile", self.reconcile())
        if self.world.is_restored:
            self.world.is_restored = False
            await self.after_restore()
        return taken

    async def run_once(self, now: int) -> int:
        """The DM inbox: what tenants said and nobody has acted on."""
        for item in list(self.world.said):
            async with self.rt.engine.transaction() as tx:
                await tx.execute(
                    "dm.insert", event_id=item.command.event_id, event_json="{}", received_at=now
                )
            await item.act(self, item.command)
            if item in self.world.said:
                self.world.said.remove(item)
        return 0

    async def reconcile(self) -> None:
        """The periodic worker's error is its own: the supervisor would start it again."""
        if not self.is_working or not self.rebuilder.done:
            return
        try:
            await self.reconciler.run_once(self.world.clock.now())
        except PurserError as error:
            self.world.say(f"reconcile failed: {error}")
            return
        self.reconciled_at = self.world.clock.now()

    async def _reconcile_rarely(self) -> None:
        """Production does it every quarter of an hour; here what webhooks miss shall stay missed
        for a while, but no bot that lives lets Stripe forget its events meanwhile (seed 205)."""
        while True:
            await asyncio.sleep(RECONCILE_RETRY_S)
            if self.world.clock.now() - self.reconciled_at >= RECONCILE_AT_LEAST_S:
                await self.reconcile()

    async def after_restore(self) -> None:
        """What docs/operations.md has an operator do: the relay host is told everything again."""
        async with self.rt.unit() as unit:
            await tell_again(unit)

    async def resolve_by_hand(self) -> None:
        """The operator's `purser payments resolve` for what was escalated, by the wallet's own
        books."""
        async with self.rt.unit() as unit:
            found = await unit.tx.fetch_all(PaymentRequest, "payments.everything", count=1000)
            for request in found:
                if request.escalated_at is None or is_beyond_margin(request, now=unit.now):
                    continue
                if unit.now < request.expires_at + request.margin_s:
                    continue
                truth = self.world.ln[request.payment_hash]
                if truth.state == "accepted":
                    continue
                self.world.count("resolved_by_hand")
                is_settled = truth.state == "settled"
                reading = operator_reading(request, settled=is_settled, now=unit.now)
                await observe_request(self.rt, unit, request, reading)

    async def decide_refunds(self) -> None:
        """`purser refund <id> --resolve` for what was escalated, by the spending wallet's books."""
        async with self.rt.unit() as unit:
            found = await unit.tx.fetch_all(Refund, "refunds.everything", count=1000)
        for refund in found:
            is_open = refund.state is RefundState.IN_FLIGHT and refund.way is RefundWay.LIGHTNING
            if not is_open or refund.escalated_at is None:
                continue
            truth = self.world.spender.asked.get(refund.payment_hash or "")
            paid = truth is not None and truth.paid_at is not None
            if not paid and self.world.clock.now() < undecided_until(refund):
                continue
            self.world.count("refund_decided_by_hand")
            await self.refund_desk.decide(refund.id, paid=paid, reason="as the wallet shows")

    async def operate(self, what: str, call: Callable[[], Awaitable[Any]]) -> None:
        """An operator's command: it may be refused, or Stripe be away."""
        if not self.is_working or not self.rebuilder.done:
            return
        self.world.say(f"operator: {what}")
        try:
            await call()
        except PurserError as error:
            self.world.say(f"operator is told: {error}")

    async def _keep_lease(self) -> None:
        """As in production, but only while something is under way: idle weeks are skipped, and made
        up for at their end, else whatever wakes a bot by itself would find it without a lease."""
        while True:
            await self.life.began.wait()
            if not self.lease.is_held():
                await self.renew()
            await asyncio.sleep(RENEW_EVERY_S)
            if self.life.busy:
                await self.renew()
            else:
                self.life.began.clear()

    async def renew(self) -> None:
        await self.life.point("renewing")
        if not await self.lease.renew():
            self.world.count("lease_lost")
            self.world.say(f"{self.life.name} lost the lease and stops")
            self.life.stopping = True
            self.life.die()
        self.world.rules.on_lease(self.life)

    async def tick(self) -> None:
        """Time has passed."""
        if not self.is_working:
            await self.start()
            return
        if self.world.rng.random() < 0.5:
            await self.renew()
        self.life.wakeups.changed()
