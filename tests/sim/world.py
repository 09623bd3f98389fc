"""The simulated world of one seed: its clock, its people, its faults, and the bot's lives in it."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TextIO

from billing.desk import Command
from billing.dunning import Action, Policy, Step
from billing.inbox import parse_event
from billing.ingest import columns
from billing.plans import Catalogue, Plan
from billing.store.migrate import available
from billing.views import StripeEvent
from tests.sim.bot import Bot
from tests.sim.life import Killed, Life
from tests.sim.lightning import LnInvoice, OutsidePayee
from tests.sim.loop import SimClock, SimIds, VirtualLoop
from tests.sim.market import Market
from tests.sim.outside import (
    Network,
    OutsideCourier,
    OutsideHost,
    OutsideStripe,
    body_of,
)
from tests.sim.payers import OutsidePayer
from tests.sim.rules import Rules
from tests.sim.settings import Settings
from tests.sim.spending import OutsideSpender
from wallet.ports import PayReply, Transaction
from wallet.secp256k1 import xonly_pubkey

TRACE_KEPT = 4_000
DEFAULTS = Settings()


TIMELINE = Policy(
    steps=(
        Step(-7, Action.NOTICE),
        Step(0, Action.DUE),
        Step(1, Action.REMIND),
        Step(2, Action.LIMIT),
        Step(3, Action.STOP),
        Step(6, Action.END),
    )
)
"""Shorter than the default: a seed has some weeks."""


UNSEEN_S = 5 * 3600
"""An outage that is shorter may fall between two of dunning's looks."""


@cache
def template() -> bytes:
    """A migrated, empty database."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for migration in available("sqlite"):
        connection.executescript(migration.script)
    return connection.serialize()


def database_of(image: bytes) -> sqlite3.Connection:
    """A connection of its own on a copy of it."""
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=1024)
    connection.deserialize(image)
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


@cache
def clock_text(at: int) -> str:
    """Days and time of day since the world began; `at` in seconds."""
    days, rest = divmod(at, 86400)
    return f"{days:3d}d {rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"


def wallet_key(number: int) -> str:
    return xonly_pubkey((number + 1).to_bytes(32, "big")).hex()


def uri_of(number: int) -> str:
    secret = f"{number + 100:064x}"
    return f"nostr+walletconnect://{wallet_key(number)}?relay=wss://relay.example&secret={secret}"


@dataclass
class Said:
    """A tenant's command that some life has to act on."""

    command: Command
    act: Callable[[Bot, Command], Awaitable[None]]


@dataclass(frozen=True)
class Backup:
    """A database of some time ago, and the webhooks that it knows."""

    at: int
    database: bytes
    acknowledged: frozenset[str]


@dataclass
class Violation:
    """A rule that does not hold."""

    rule: str
    text: str


class SimWorld:
    """Everything of one seed."""

    def __init__(
        self,
        seed: int,
        loop: VirtualLoop,
        tenants: int | None = None,
        settings: Settings = DEFAULTS,
    ) -> None:
        self.seed = seed
        self.settings = settings
        self.loop = loop
        self.rng = random.Random(seed)
        self.clock = SimClock(loop)
        self.ids = SimIds()
        self.connection = database_of(template())
        self.db_lock = asyncio.Lock()
        self.catalogue = Catalogue(
            [
                Plan("basic", "Basic", 400, "usd"),
                Plan("pro", "Pro", 900, "usd"),
                Plan("free", "Free", None, "usd"),
            ]
        )
        self.timeline = replace(TIMELINE, quiet=settings.quiet)
        self.outages: list[tuple[int, int]] = []
        self.absent_since: int | None = None
        self.away_until = 0
        self.opened_at: dict[str, int] = {}
        self.chaos = True
        self.counts: Counter[str] = Counter(f"setting_{name}" for name in settings.names)
        self.commits = 0
        self.trace: deque[tuple[int, str]] = deque(maxlen=TRACE_KEPT)
        self.story: TextIO | None = None
        self.violations: list[Violation] = []
        self.network = Network(self)
        self.rules = Rules(self)
        self.trust = self.rules.trust
        self.ln: dict[str, LnInvoice] = {}
        self.ln_of: defaultdict[str, list[LnInvoice]] = defaultdict(list)
        self.told: Counter[str] = Counter()
        self.max_wallets = 12
        self.payees = [OutsidePayee(self, 0)]
        self.market = Market(self)
        self.spender = OutsideSpender(self)
        self.stripe = OutsideStripe(self)
        self.host = OutsideHost(self)
        self.courier = OutsideCourier(self)
        self.rails = self.rng.choice(
            (("nwc", "card", "manual"), ("nwc", "card", "manual"), ("card", "nwc", "manual"))
        )
        count = self.rng.randint(2, 5) if tenants is None else tenants
        self.tenants = [f"{i + 1:02x}" * 32 for i in range(count)]
        self.wallets: dict[str, OutsidePayer] = {}
        self.bots: list[Bot] = []
        self.copies: list[Bot] = []
        self.said: list[Said] = []
        self.acknowledged: set[str] = set()
        self.hand_pays = 0.7
        self.dashboard_minor: dict[str, int] = {}
        self.backup: Backup | None = None
        self.restoring: Backup | None = None
        self.is_restored = False
        self.restored_at: int | None = None
        self._numbers = 0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def payee(self) -> OutsidePayee:
        """The operator's wallet of today; the ones before it are still asked about what is old."""
        return self.payees[-1]

    def payee_of(self, wallet_pubkey: str) -> OutsidePayee:
        return next(payee for payee in self.payees if payee.key == wallet_pubkey)

    @property
    def credits(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Every credit that Stripe booked for money, and every debit, once for each operation; not
        an operator's."""
        found = {
            a["operation_id"]: (n, a)
            for n, a in self.stripe.gateway.calls
            if n in ("credit_customer", "debit_customer")
            and a["operation_id"].startswith(("credit_", "spend_", "return_"))
        }
        return list(found.values())

    # --- telling --------------------------------------------------------------------------------

    def count(self, fault: str, times: int = 1) -> None:
        self.counts[fault] += times

    def say(self, text: str) -> None:
        self.trace.append((int(self.loop.virtual), text))
        if self.story is not None:
            self.story.write(f"{clock_text(int(self.loop.virtual))}  {text}\n")

    def violate(self, rule: str, text: str) -> None:
        self.say(f"!!! {rule}: {text}")
        self.violations.append(Violation(rule, text))

    def bug(self, where: str, error: Exception) -> None:
        self.violate("bug", f"{where}: {type(error).__name__}: {error}")

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    # --- time -----------------------------------------------------------------------------------

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """The outside does this later, whatever becomes of the bot."""
        self.loop.call_later(seconds, act)

    def later(self, seconds: int, what: str, effect: Callable[[], Awaitable[Any]]) -> None:
        """A request that its sender has given up still arrives."""

        async def arrive() -> None:
            self.say(what)
            try:
                await effect()
            except Exception as error:
                self.say(f"{what}: {error}")

        self.after(seconds, lambda: self._keep(self.loop.create_task(arrive())))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks = [t for t in self._tasks if not t.done()] + [task]

    async def pass_time(self, seconds: int) -> None:
        """Time moves on; Stripe does what is due by itself on the way."""
        end = self.loop.virtual + seconds
        while (left := end - self.loop.virtual) > 0:
            due = self.stripe.books.next_due()
            step = left if due is None else min(left, max(1, due - self.clock.now()))
            await asyncio.sleep(step)
            self.stripe.run()

    def outage(self, seconds: int) -> None:
        """Something of ours is away from now on: dunning's time stands still (K7)."""
        now = self.clock.now()
        self.outages.append((now, now + seconds))

    def end_outages(self) -> None:
        """Everything is back."""
        now = self.clock.now()
        self.outages = [(begin, min(end, now)) for begin, end in self.outages]

    def counted_s(self, since: int) -> int:
        """How much of the time since then can at most have counted for dunning: what was away for
        longer than its looks are apart did not."""
        now = self.clock.now()
        outages = [*self.outages]
        if self.absent_since is not None:
            outages.append((self.absent_since, now))
        counted, at = now - since, since
        for begin, end in sorted(outages):
            begin, end = max(begin, at), min(end, now)
            if end - begin > UNSEEN_S:
                counted -= end - begin - UNSEEN_S
            at = max(at, end)
        return counted

    # --- the bot --------------------------------------------------------------------------------

    def living(self) -> list[Bot]:
        return [b for b in self.bots if not b.life.dead]

    def databases(self) -> list[sqlite3.Connection]:
        """The one, and those that were copied and woken up beside it."""
        return [self.connection, *(c.life.connection for c in self.copies)]

    def start_copy(self) -> None:
        """A second process, on a copy of the database: of a backup, or of this very moment."""
        image = self.connection.serialize()
        if self.backup is not None and self.rng.random() < 0.5:
            image = self.backup.database
        bot = Bot(Life(self, f"copy{self.next_number()}", database_of(image)))
        self.copies.append(bot)
        self.say(f"{bot.life.name} starts")
        self.after(self.rng.choice((900, 7200, 86_400, 172_800)), self.end_copies)

    def end_copies(self) -> None:
        """It is noticed: the copy is stopped, and the other one started again, which then takes up
        what the copy was paid (docs/operations.md)."""
        if self.copies:
            for bot in [*self.copies, *self.bots]:
                bot.life.die()

    def active(self) -> Bot | None:
        """Who takes webhooks and hears wallets: the one with the lease, or one that thinks so."""
        working = [b for b in self.living() if b.is_working and not b.life.is_frozen]
        return working[-1] if working else None

    def start_bot(self) -> Bot:
        if self.absent_since is not None:
            self.outages.append((self.absent_since, self.clock.now()))
            self.absent_since = None
        bot = Bot(Life(self, f"bot{len(self.bots)}"))
        self.bots.append(bot)
        self.say(f"{bot.life.name} starts")
        return bot

    async def tick(self) -> None:
        for bot in [*self.living(), *(c for c in self.copies if not c.life.dead)]:
            await bot.life.spawn("tick", bot.tick())

    async def bury(self) -> None:
        for bot in [b for b in self.bots if b.life.dead]:
            await bot.life.reap()
        for bot in [c for c in self.copies if c.life.dead]:
            await bot.life.reap()
            bot.life.connection.close()
            self.copies.remove(bot)
        self.bots = self.living()
        if not self.bots and self.absent_since is None:
            self.absent_since = self.clock.now()
        if self.restoring is not None and not self.bots:
            self._restore(self.restoring)
            self.restoring = None

    # --- backups --------------------------------------------------------------------------------

    def back_up(self) -> None:
        """A copy of the database, as an operator makes one."""
        self.backup = Backup(
            self.clock.now(), self.connection.serialize(), frozenset(self.acknowledged)
        )

    def _restore(self, backup: Backup) -> None:
        self.count("backup_restored")
        self.say("--- an older database is put back ---")
        # Another connection: one that is replaced under its prepared statements crashes Python.
        self.connection.close()
        self.connection = database_of(backup.database)
        # What Stripe was told to forget since then, only Stripe's own list can bring again.
        self.acknowledged = set(backup.acknowledged)
        self.is_restored = True
        self.restored_at = self.clock.now()

    # --- what reaches the bot -------------------------------------------------------------------

    def webhook(self, event: StripeEvent) -> None:
        times = 1
        if self.chaos:
            roll = self.rng.random()
            if roll < self.network.rate:
                self.count("webhook_dropped")
                return
            times = 2 if roll > 1 - self.network.rate else 1
            if times == 2:
                self.count("webhook_duplicated")
        for _ in range(times):
            delay = self.rng.choice((0, 1, 1, 30, 600, 7200)) if self.chaos else 1
            if delay > 1:
                self.count("webhook_delayed")
            self.after(delay, lambda: self._deliver(event, 3))

    def _deliver(self, event: StripeEvent, tries: int) -> None:
        bot = self.active()
        if bot is None:
            if tries:
                self.count("webhook_refused")
                self.after(3600, lambda: self._deliver(event, tries - 1))
            return
        bot.life.spawn("webhook", self.ingest(bot, event))

    async def ingest(self, bot: Bot, event: StripeEvent) -> None:
        row = parse_event(body_of(event), self.clock.now())
        assert row is not None
        async with bot.rt.engine.transaction() as tx:
            await tx.execute("ingest.insert_event", **columns(row))
        self.acknowledged.add(event.id)
        bot.rt.wakeups.changed()

    def reply(self, reply: PayReply) -> None:
        """A wallet's answer: early, late, twice, or never."""
        if self.chaos and self.rng.random() < self.network.rate:
            self.count("wallet_reply_lost")
            return
        for _ in range(2 if self.chaos and self.rng.random() < self.network.rate else 1):
            delay = self.rng.choice((0, 0, 1, 20, 900)) if self.chaos else 0
            self.after(delay, lambda: self._to_witness("reply", reply))

    def notify(self, payment_hash: str) -> None:
        told = Transaction(payment_hash, "incoming", "settled", None, None, None, None)
        self.after(1, lambda: self._to_witness("notification", told))

    def _to_witness(self, name: str, told: PayReply | Transaction) -> None:
        bot = self.active()
        if bot is None:
            self.count("wallet_reply_unheard")
        heard = [bot] if bot is not None else []
        for bot in [*heard, *(c for c in self.copies if c.is_working and not c.life.dead)]:
            if isinstance(told, PayReply):
                bot.life.spawn(name, bot.witness.pay_reply(told))
            else:
                bot.life.spawn(name, bot.witness.notification(told))

    def on_message(self, recipient: str, kind: str, facts: Mapping[str, object]) -> None:
        """A person reads what a relay has taken."""
        self.say(f"DM to {recipient[:4]}: {kind}")
        if kind == "plan_quote" and self.rng.random() < 0.8:
            code = str(facts["code"])
            self.after(
                self.rng.choice((1, 60, 3600)),
                lambda: self.command(
                    recipient, "confirm", lambda bot, c: bot.plan_desk.confirm(c, code)
                ),
            )
        if kind.startswith("dunning_"):
            self.count(kind)
        if kind in ("preflight", "renewal_notice"):
            self.trust.on_heads_up(recipient, kind, facts)
        if kind != "pay_by_hand":
            return
        payment_hash = str(facts["bolt11"]).removeprefix("lnbcrt1")
        self.rules.on_shown(payment_hash)
        if self.rng.random() > self.hand_pays:
            return
        invoice = self.payee.invoices[payment_hash]
        left = max(1, invoice.bolt11.expires_at - self.clock.now())
        delay = self.rng.choice((5, 60, self.rng.randint(1, left), left, left + 200, left + 290))
        self.count("hand_payment" if delay < left else "hand_payment_last_second")
        # What comes after expiry is what nodes hold on to.
        held = (0, 5400, 5400, 5400) if delay > left else (0, 0, 60, 5400)
        hold = self.rng.choice(held) if self.chaos else 0
        self.after(delay, lambda: self._by_hand(payment_hash, hold))
        if hold > 3600 and delay > left and self.rng.random() < 0.8:
            # Who paid and hears nothing gives a card as well.
            self.after(delay + self.rng.randint(350, 4500), lambda: self._give_card(recipient))

    def _give_card(self, tenant: str) -> None:
        customer = self.stripe.customer_of(tenant)
        if customer is not None and self.chaos:
            self.count("card_while_held")
            self.stripe.gateway.set_card(customer, "ok")
            self.stripe.books.tell("customer.updated", self.stripe.books.customers[customer])

    def _by_hand(self, payment_hash: str, hold_s: int) -> None:
        self.payees[self.ln[payment_hash].payee].pay(payment_hash, "hand", hold_s=hold_s)

    # --- tenants --------------------------------------------------------------------------------

    def payer_of(self, wallet_pubkey: str) -> OutsidePayer:
        return self.wallets[wallet_pubkey]

    def command(
        self, tenant: str, verb: str, act: Callable[[Bot, Command], Awaitable[None]]
    ) -> None:
        name = f"{self.next_number():064x}"
        self.say(f"{tenant[:4]} says {verb}")
        self.said.append(Said(Command(name, name, tenant, verb), act))
        for bot in self.living():
            bot.rt.wakeups.changed()


__all__ = ["Killed", "SimWorld", "Violation", "template", "uri_of", "wallet_key"]
