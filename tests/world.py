"""The whole of billing in memory: real code and store; Stripe, wallets, rates, host are fakes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from billing.accounts import Accounts
from billing.card_pages import CardCommands, CardPageMaker
from billing.cards import CardKeeper
from billing.collection import Collector
from billing.connections import ConnectionBook, Prober, WalletCommands
from billing.customers import CustomerBook
from billing.desk import Command, Desk, Policy
from billing.dunning import Policy as Timeline
from billing.dunning_clock import Heartbeat
from billing.dunning_end import SubscriptionEnder
from billing.dunning_evidence import Investigator
from billing.dunning_worker import Dunner
from billing.errors import NoQuote
from billing.events import EventWorker
from billing.good_standing import StopPolicy
from billing.handlers import Handlers
from billing.inbox import parse_event
from billing.ingest import columns
from billing.lease import LEASE_S, Lease
from billing.mass_failure import FailureWatch
from billing.model import (
    Connection,
    ConnectionRole,
    ConnectionState,
    HostedRelay,
    Invoice,
    OutboxMessage,
    PaymentAttempt,
    PaymentRequest,
    Rail,
    Settlement,
)
from billing.orders import Orders
from billing.outbox import OutboxWorker
from billing.pace import PayeePace
from billing.payer_lookups import PayerLookups
from billing.payer_replies import Witness
from billing.plan_changes import Provision
from billing.plan_desk import PlanDesk
from billing.plan_worker import PlanWorker
from billing.plans import Catalogue, Plan
from billing.ports import RelayAnswer
from billing.preflight import Preflight
from billing.promises import Promises
from billing.rails.card import CardRail
from billing.rails.credit import CreditRail
from billing.rails.issue import Issuer
from billing.rails.manual import ManualRail
from billing.rails.nwc import NwcRail
from billing.rates import Rate
from billing.rebuild import Rebuilder
from billing.reconcile import Reconciler
from billing.refund_desk import RefundDesk
from billing.refund_lightning import LightningRefunds
from billing.refund_memory import RefundMemory
from billing.refund_worker import RefundWorker
from billing.relays import RelayKeeper
from billing.resolver import Resolver
from billing.resumes import Resumes
from billing.settlements import Placer
from billing.store import tenants
from billing.store.engine import MigratableEngine
from billing.store.vault import Key, KeyRing, Vault
from billing.subscription_changes import Changer
from billing.subscription_sync import SubscriptionSync
from billing.sweep import Sweeper
from billing.unit import Runtime, Wakeups, facts_of
from tests.crashes import CrashingEngine, Stepping, Tripwire
from tests.fakes.clock import FakeClock
from tests.fakes.hosted_relays import FakeHostedRelays
from tests.fakes.refund_wallets import StubRefundWallets
from tests.fakes.stripe import FakeStripe
from wallet.bolt11 import Bolt11
from wallet.outcome import PayOutcome, Refused, Settled
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

ALICE = "a1" * 32
OPERATOR = "0e" * 32
PRICE = Decimal(100_000)
"""USD for one bitcoin: a dollar is 1 000 sats."""


class CountingIds:
    """Ids in order, so that a failing test names the same ones again."""

    def __init__(self) -> None:
        self.count = 0

    def new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}_{self.count:06d}"

    def token_bytes(self, count: int) -> bytes:
        self.count += 1
        return hashlib.shake_256(str(self.count).encode()).digest(count)

    def uniform(self) -> float:
        return 0.5


@dataclass
class StubInvoice:
    """One invoice of the operator's wallet."""

    bolt11: Bolt11
    preimage: str
    state: str = "pending"
    settled_at: int | None = None


@dataclass
class StubPayee:
    """The operator's wallet: issues, and says what happened."""

    clock: FakeClock
    invoices: dict[str, StubInvoice] = field(default_factory=dict)
    down: bool = False
    mute_lookups: bool = False
    forgets: set[str] = field(default_factory=set)
    seed: str = ""
    """Another wallet has other preimages."""

    async def make_invoice(
        self, amount_msat: int, description: str, expiry_s: int
    ) -> Bolt11 | Unreachable:
        if self.down:
            return Unreachable("silent")
        preimage = hashlib.sha256(f"preimage {self.seed}{len(self.invoices)}".encode()).digest()
        payment_hash = hashlib.sha256(preimage).hexdigest()
        bolt11 = Bolt11(
            text=f"lnbcrt1{payment_hash}",
            network="bcrt",
            amount_msat=amount_msat,
            timestamp=self.clock.now(),
            expiry_s=expiry_s,
            payment_hash=payment_hash,
            payee_pubkey="02" + "ab" * 32,
            description=description,
        )
        self.invoices[payment_hash] = StubInvoice(bolt11, preimage.hex())
        return bolt11

    async def lookup_invoice(self, payment_hash: str) -> LookupAnswer:
        invoice = self.invoices.get(payment_hash)
        if self.down or self.mute_lookups:
            return Unreachable("silent")
        if invoice is None or payment_hash in self.forgets:
            return WalletError("NOT_FOUND", "no such invoice")
        return Transaction(
            payment_hash=payment_hash,
            direction="incoming",
            state=invoice.state,
            amount_msat=invoice.bolt11.amount_msat,
            settled_at=invoice.settled_at,
            created_at=invoice.bolt11.timestamp,
            expires_at=invoice.bolt11.expires_at,
            preimage=invoice.preimage,
        )

    async def get_info(self) -> WalletInfo | Unreachable:
        if self.down:
            return Unreachable("silent")
        return WalletInfo(methods=frozenset({"make_invoice", "lookup_invoice", "get_info"}))

    async def list_incoming(self, since: int) -> WalletError:
        return WalletError("NOT_IMPLEMENTED", "no")

    def settle(self, payment_hash: str) -> None:
        """Somebody paid it."""
        self.invoices[payment_hash].state = "settled"
        self.invoices[payment_hash].settled_at = self.clock.now()


@dataclass
class StubPayer:
    """A tenant's wallet; `behaviour` says what it does with a pay request."""

    payee: StubPayee
    witness: Witness
    behaviour: str = "pays"
    sent: list[str] = field(default_factory=list)
    sent_at: list[tuple[int, str]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    relay_says: bool | None = True
    """The relay's OK to each write."""
    resent_after: list[Sent] = field(default_factory=list)
    answers: bool = True
    info: WalletInfo = field(
        default_factory=lambda: WalletInfo(
            methods=frozenset({"pay_invoice", "get_info", "get_balance"})
        )
    )
    balance_msat: int = 1_000_000_000
    budget: Budget | None = None
    probes: int = 0
    lookups: list[tuple[int, str]] = field(default_factory=list)
    looked_up: LookupAnswer = field(default_factory=lambda: Unreachable("silent"))
    """What it answers when it is asked about a payment."""

    async def probe(self) -> WalletInfo | Unreachable:
        self.probes += 1
        if not self.answers:
            return Unreachable("silent for 20 s")
        return self.info

    async def get_balance(self) -> int:
        return self.balance_msat

    async def get_budget(self) -> Budget | None:
        return self.budget

    def prepare_pay(self, bolt11: str, *, now: int, expiration: int) -> SealedRequest:
        event_id = hashlib.sha256(bolt11.encode()).hexdigest()
        return SealedRequest(event_id, bolt11, "pay_invoice", "nip44_v2", now, expiration)

    async def publish_pay(self, request: SealedRequest, *, permit: Any) -> PublishAnswer:
        if not permit() or self.behaviour == "not_sent":
            return NotSent("no open socket")
        self.sent.append(request.event_id)
        payment_hash = request.event_json.removeprefix("lnbcrt1")
        self.sent_at.append((self.payee.clock.now(), payment_hash))
        outcome: PayOutcome | None = None
        if self.behaviour == "pays":
            self.payee.settle(payment_hash)
            outcome = Settled(self.payee.invoices[payment_hash].preimage)
        elif self.behaviour == "refuses":
            outcome = Refused("INSUFFICIENT_BALANCE", "not enough")
            self.refused.add(payment_hash)
        elif self.behaviour == "pays_silently":
            self.payee.settle(payment_hash)
        if outcome is not None:
            await self.witness.pay_reply(PayReply(request.event_id, outcome))
        return Sent("wss://relay.example", self.relay_says)

    async def resend_pay(
        self, request: SealedRequest, earlier: Sent, *, permit: Any
    ) -> PublishAnswer:
        self.resent_after.append(earlier)
        return await self.publish_pay(request, permit=permit)

    async def lookup_outgoing(self, payment_hash: str) -> LookupAnswer:
        self.lookups.append((self.payee.clock.now(), payment_hash))
        return self.looked_up


@dataclass
class StubCourier:
    """Relays that say OK."""

    clock: FakeClock
    said: list[tuple[str, str, Mapping[str, object]]] = field(default_factory=list)
    said_at: list[int] = field(default_factory=list)
    down: bool = False

    async def deliver(
        self, message_key: str, recipient: str, kind: str, facts: Mapping[str, object]
    ) -> Sequence[RelayAnswer]:
        if self.down:
            return [RelayAnswer("wss://inbox.example", False, "blocked")]
        self.said.append((recipient, kind, facts))
        self.said_at.append(self.clock.now())
        return [RelayAnswer("wss://inbox.example", True, "")]


class StubQuoter:
    """A fixed price."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.down = False

    async def quote(self, currency: str) -> Rate:
        if self.down:
            raise NoQuote(currency, "the sources are away")
        return Rate(currency, PRICE, ("one", "two"), self.clock.now())


class World:
    """Everything, with a `settle_down` that runs the workers until nothing is due."""

    def __init__(
        self,
        engine: MigratableEngine,
        clock: FakeClock | None = None,
        *,
        life: int = 1,
        wire: Tripwire | None = None,
        payee_kind: str = "lnd",
    ) -> None:
        self.clock = clock or FakeClock()
        self.ids = CountingIds()
        self.store = engine
        self.wire = wire
        self.life = life
        self.engine: Any = engine if wire is None else CrashingEngine(engine, wire)
        self.lease = Lease(self.engine, self.clock, f"life {life}")
        self.rt = Runtime(self.engine, self.clock, self.ids, Wakeups(), self.lease, (OPERATOR,))
        self.stripe = FakeStripe(self.clock)
        self.payee = StubPayee(self.clock)
        self.witness = Witness(self.rt)
        self.payer = StubPayer(self.payee, self.witness)
        self.refund_wallets = StubRefundWallets(self.clock)
        self.host = FakeHostedRelays()
        self.courier = StubCourier(self.clock)
        self.payee_kind = payee_kind
        self.network: str | None = None
        self.days_until_due: int | None = None
        self.email_domain: str | None = None
        self.provision: Provision = "paid"
        self.stop_policy: StopPolicy = "period_end"
        self.commands = 0
        self.timeline = Timeline()
        self.away_after_s = 86_400
        """Tests take long steps: only a longer one counts as time in which the bot was away."""
        self.quoter = StubQuoter(self.clock)
        self.catalogue = Catalogue(
            [
                Plan("basic", "Basic", 400, "usd"),
                Plan("pro", "Pro", 900, "usd"),
                Plan("free", "Free", None, "usd"),
            ]
        )
        self._build()

    def _build(self) -> None:
        rt = self.rt
        rt.free_plans = self.catalogue.free_ids
        rt.prices = self.catalogue.prices
        self.wallets = wallets = _Wallets(self)
        if self.wire is not None:
            self.wire.hooks(self.stripe)
        host: Any = self._port(self.host, "relay host", "apply")
        courier: Any = self._port(self.courier, "courier")
        self.pace = pace = PayeePace()
        self.issuer = issuer = Issuer(
            rt, self.stripe, wallets, StubQuoter(self.clock), self.payee_kind, pace
        )
        self.collector = Collector(
            rt,
            self.stripe,
            issuer,
            NwcRail(rt, wallets, issuer, self.network),
            CardRail(rt, self.stripe),
            ManualRail(rt, issuer),
            CreditRail(rt, self.stripe),
            (Rail.NWC, Rail.CARD, Rail.MANUAL),
        )
        self.placer = Placer(rt, self.stripe)
        self.resolver = Resolver(rt, self, pace)
        self.payer_lookups = PayerLookups(rt, self)
        self.refund_wallets.life(self.witness, self.wire)
        lightning = LightningRefunds(
            rt, self.refund_wallets, self.refund_wallets, RefundMemory(rt, self.stripe)
        )
        self.refunds = RefundWorker(rt, self.stripe, lightning)
        self.refund_desk = RefundDesk(rt, self.stripe, StubQuoter(self.clock))
        self.keeper = RelayKeeper(rt, host, self.catalogue, "relays.example")
        self.sync = SubscriptionSync(
            rt,
            self.stripe,
            self.catalogue,
            Changer(rt, self.stripe, self.days_until_due),
            email_domain=self.email_domain,
            provision=self.provision,
            stop=self.stop_policy,
        )
        self.plan_worker = PlanWorker(
            rt, self.sync.plan_orders.pricer, self.catalogue, self.provision
        )
        self.events = EventWorker(rt, Handlers(rt, self.stripe, self.catalogue), livemode=False)
        self.outbox = OutboxWorker(rt, courier)
        self.desk = Desk(rt, Policy(None))
        self.orders = Orders(self.desk, self.catalogue, self.stop_policy)
        self.resumes = Resumes(self.desk, self.catalogue)
        self.plan_desk = PlanDesk(self.desk, self.catalogue, self.provision)
        self.accounts = Accounts(self.desk, self.timeline)
        self.promises = Promises(self.desk, self.timeline)
        vault = Vault(KeyRing((Key("k1", bytes(32)),)), self.ids)
        self.book = ConnectionBook(rt, vault, allow_private=True)
        self.wallet_commands = WalletCommands(self.desk, self.book)
        self.card_commands = CardCommands(self.desk, takes_cards=True)
        self.card_pages = CardPageMaker(
            rt,
            self.stripe,
            CustomerBook(rt, self.stripe, self.email_domain),
            "https://billing.example/",
        )
        self.cards = CardKeeper(rt, self.stripe)
        self.prober = Prober(rt, wallets, wallets, self.network)
        self.preflight = Preflight(
            rt, self.stripe, wallets, StubQuoter(self.clock), self.catalogue, self.network
        )
        self.heartbeat = Heartbeat(
            rt, self.stripe, wallets, self.quoter, "usd", away_after_s=self.away_after_s
        )
        self.dunner = Dunner(
            rt,
            self.heartbeat,
            Investigator(rt, self.stripe, self, "usd"),
            SubscriptionEnder(rt, self.stripe, self.catalogue),
            FailureWatch(rt),
            self.quoter,
            self.timeline,
        )
        self.reconciler = Reconciler(rt, self.stripe, self.catalogue)
        self.rebuilder = Rebuilder(
            rt,
            self.stripe,
            self.resolver,
            Sweeper(rt, wallets, self.quoter),
            self.reconciler.subscriptions,
        )

    def _port(self, inner: Any, name: str, *methods: str) -> Any:
        return inner if self.wire is None else Stepping(inner, name, self.wire, methods)

    async def reborn(
        self, engine: MigratableEngine | None = None, *, rebuild: bool = True
    ) -> World:
        """After a crash: a new process on the same database, in the same outside world. Another
        engine: on what was restored from a backup."""
        self.clock.advance(LEASE_S + 1)
        world = World(engine or self.store, self.clock, life=self.life + 1)
        world.ids.count = self.ids.count + 1_000 * self.life
        world.stripe, world.payee, world.host = self.stripe, self.payee, self.host
        world.courier, world.payee_kind, world.commands = (
            self.courier,
            self.payee_kind,
            self.commands + 1_000,
        )
        world.refund_wallets = self.refund_wallets
        world.timeline, world.quoter = self.timeline, self.quoter
        world.away_after_s = self.away_after_s
        world.provision, world.stop_policy = self.provision, self.stop_policy
        world.stripe.before = world.stripe.after = lambda name, arguments: None
        world.payer, world.payer.witness = self.payer, world.witness
        world._build()
        assert await world.lease.take()
        if rebuild:
            await world.rebuilder.run_once(self.clock.now())
        return world

    # --- ports that the world itself stands for --------------------------------------------------

    async def lookup(self, connection: Connection, payment_hash: str) -> LookupAnswer:
        if self.wire is not None:
            self.wire.step("before lookup")
        answer = await self.payee.lookup_invoice(payment_hash)
        if isinstance(answer, WalletError) and answer.code == "NOT_FOUND":
            return NotFound()
        return answer

    async def lookup_outgoing(self, connection: Connection, payment_hash: str) -> LookupAnswer:
        assert connection.role is ConnectionRole.PAYER
        payer = self._port(self.payer, "payer", "lookup_outgoing")
        answer: LookupAnswer = await payer.lookup_outgoing(payment_hash)
        return answer

    # --- acting ----------------------------------------------------------------------------------

    async def start(self) -> None:
        assert await self.lease.take()
        await self._connection("conn_payee", ConnectionRole.PAYEE, None)

    async def _connection(self, name: str, role: ConnectionRole, tenant: str | None) -> None:
        async with self.rt.unit() as unit:
            await tenants.insert_connection(
                unit.tx,
                Connection(
                    id=name,
                    role=role,
                    tenant=tenant,
                    sealed_uri="sealed",
                    wallet_pubkey="cd" * 32,
                    masked="nwc cdcd…",
                    encryption="nip44_v2",
                    state=ConnectionState.ACTIVE,
                    methods=None,
                    probed_at=None,
                    probe_due_at=None,
                    problem=None,
                    created_at=self.clock.now(),
                    ended_at=None,
                ),
            )

    async def connect_wallet(self, tenant: str = ALICE, *, methods: str | None = None) -> None:
        """A wallet that was probed already; `methods` is what it answered."""
        async with self.rt.unit() as unit:
            command = await self.command("wallet", tenant, unit.tx)
            await self.desk.ensure_tenant(unit, command)
        name = f"conn_{tenant[:6]}"
        await self._connection(name, ConnectionRole.PAYER, tenant)
        if methods is None:
            return
        async with self.rt.unit() as unit:
            await unit.tx.execute(
                "connections.probed",
                id=name,
                encryption="nip44_v2",
                methods=methods,
                now=unit.now,
                problem=None,
            )

    async def command(self, verb: str, sender: str = ALICE, tx: Any = None) -> Command:
        """A command as the inbox has stored it."""
        self.commands += 1
        name = f"{self.commands:064x}"
        row = {"event_id": name, "event_json": "{}", "received_at": self.clock.now()}
        if tx is not None:
            await tx.execute("dm.insert", **row)
        else:
            async with self.engine.transaction() as fresh:
                await fresh.execute("dm.insert", **row)
        return Command(name, name, sender, verb)

    async def deliver_events(self) -> int:
        """What Stripe's webhooks would bring: every event, into the inbox."""
        page = await self.stripe.events_after(None, 0)
        count = 0
        async with self.engine.transaction() as tx:
            for event in page.events:
                row = parse_event(json.dumps(dict(event.raw)), self.clock.now())
                assert row is not None
                count += await tx.execute("ingest.insert_event", **columns(row))
        return count

    async def settle_down(self, rounds: int = 30) -> None:
        """Run every worker until a round finds nothing due."""
        await self.lease.renew()
        for _ in range(rounds):
            worked = await self.deliver_events()
            now = self.clock.now()
            for worker in (
                self.events,
                self.prober,
                self.preflight,
                self.plan_worker,
                self.sync,
                self.card_pages,
                self.cards,
                self.collector,
                self.resolver,
                self.payer_lookups,
                self.placer,
                self.refunds,
                self.keeper,
                self.dunner,
                self.outbox,
            ):
                worked += await worker.run_once(now)
            if not worked:
                return
        raise AssertionError("the world does not come to rest")

    async def pass_time(self, seconds: int, step: int = 600) -> None:
        """Both clocks move on, and everybody works at each step."""
        left = seconds
        while left > 0:
            move = min(step, left)
            self.clock.advance(move)
            left -= move
            await self.lease.renew() or await self.lease.take()
            await self.settle_down()

    # --- looking ---------------------------------------------------------------------------------

    async def all(self, cls: type[Any], name: str, **params: Any) -> list[Any]:
        async with self.engine.transaction() as tx:
            return await tx.fetch_all(cls, name, **params)

    async def relays(self, tenant: str = ALICE) -> list[HostedRelay]:
        return await self.all(HostedRelay, "relays.of_tenant", tenant=tenant)

    async def invoices(self, tenant: str = ALICE) -> list[Invoice]:
        return await self.all(Invoice, "invoices.of_tenant", tenant=tenant)

    async def requests(self) -> list[PaymentRequest]:
        found = await self.all(PaymentRequest, "payments.everything", count=1000)
        return sorted(found, key=lambda r: (r.created_at, r.id))

    async def attempts(self, invoice_id: str) -> list[PaymentAttempt]:
        return await self.all(PaymentAttempt, "payments.attempts_of", invoice_id=invoice_id)

    async def settlements(self, tenant: str = ALICE) -> list[Settlement]:
        return await self.all(Settlement, "payments.settlements_of_tenant", tenant=tenant)

    async def messages(self, recipient: str = ALICE) -> list[tuple[str, dict[str, Any]]]:
        rows = await self.all(OutboxMessage, "outbox.to_recipient", recipient=recipient)
        return [(row.kind, dict(facts_of(row.facts))) for row in rows]


class _Wallets:
    """Adapts the world to the ports `Payees` and `Payers`."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def payee(self, connection: Connection) -> Any:
        return self.world._port(self.world.payee, "payee")

    async def payer(self, connection: Connection) -> Any:
        return self.world._port(
            self.world.payer, "payer", "probe", "publish_pay", "resend_pay", "get_balance"
        )
