"""A tenant's story, played for real: order, renewal, an empty wallet, a payment by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

import httpx

from billing.money import fiat_to_msat, format_fiat, format_sats
from bot.sandbox.bot_process import BotProcess
from bot.sandbox.lightning import Payment, SandboxWallet
from bot.sandbox.tenant import TenantClient
from bot.sandbox.town import Town

MONTH_S = 32 * 86_400
"""A little more than any month: the renewal falls due, and its hour as a draft passes."""
HAND_FUNDS_MSAT = 20_000_000
RELAY = "alice"
PLAN = "basic"


class StoryDiffers(AssertionError):
    """A step did not go as it should; the text says which and how."""


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the narration. `at_s`: seconds since the beginning; `date`: billing time."""

    at_s: float
    date: str
    who: str
    what: str


@dataclass(frozen=True, slots=True)
class Book:
    """One party's books at the end: payments counted, and their sum in msat."""

    whose: str
    payments: int
    amount_msat: int
    note: str


Tell = Callable[[Step], None]


@dataclass(slots=True)
class Story:
    """`await Story(town, bot, tenant, tell).play()` returns the books; raises `StoryDiffers`."""

    town: Town
    bot: BotProcess
    tenant: TenantClient
    tell: Tell
    hand: SandboxWallet = field(init=False)
    said_paid: list[str] = field(default_factory=list)
    bolt11: str = ""
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.hand = self.town.network.wallet("by hand", HAND_FUNDS_MSAT)

    async def play(self) -> list[Book]:
        """Every step checks what it shows."""
        for scene in (
            self._greeting,
            self._connect,
            self._order,
            self._a_month_passes,
            self._wallet_is_empty,
            self._pay_by_hand,
            self._all_is_well,
        ):
            await self._scene(scene)
        return self.books()

    async def _scene(self, scene: Callable[[], Awaitable[None]]) -> None:
        try:
            await scene()
        except AssertionError as error:
            name = scene.__name__.strip("_").replace("_", " ")
            raise StoryDiffers(f"{name}: {error}{self.bot.tail()}") from error

    def say(self, who: str, what: str) -> None:
        """Narrate."""
        date = datetime.fromtimestamp(self.town.stripe.world.now(), UTC).strftime("%d %b %Y")
        self.tell(Step(round(time.monotonic() - self._began, 1), date, who, what))

    # --- scenes ---------------------------------------------------------------------------------

    async def _greeting(self) -> None:
        await self._ask("hello", "You can say", first_line=True)
        await self._ask("plans", "Order one with")

    async def _connect(self) -> None:
        await self.tenant.say(f"wallet {self.town.tenant_uri}")
        self.say("tenant", "wallet nostr+walletconnect://…")
        self._heard(await self.tenant.hear("Asking your wallet"))
        self._heard(await self.tenant.hear("is connected"))

    async def _order(self) -> None:
        await self._ask(f"new {RELAY} {PLAN}", "Ordered")
        await self._hear_paid("from your wallet")
        self._heard(await self.tenant.hear("is up"))
        await self._probe()

    async def _a_month_passes(self) -> None:
        await self._month()
        await self._hear_paid("from your wallet")

    async def _wallet_is_empty(self) -> None:
        left_msat = self.town.tenant_wallet.drain()
        self.say("wallet", f"is emptied ({format_sats(left_msat)} leave it)")
        await self._month()
        text = await self.tenant.hear("To pay:")
        assert "refused" in text, f"the message does not say that the wallet refused: {text[:80]}"
        self._heard(text)
        bolt11 = next(word for word in text.split() if word.startswith("lnbcrt"))
        self.bolt11 = bolt11

    async def _pay_by_hand(self) -> None:
        payment = self.hand.pay(self.bolt11)
        self.say("tenant", f"pays {format_sats(payment.amount_msat)} by hand, with another wallet")
        await self._hear_paid("over Lightning")

    async def _all_is_well(self) -> None:
        await self._ask("status", "Nothing is owed")
        await self._probe()
        async with asyncio.timeout(20):
            while self._open_invoices():
                await asyncio.sleep(0.2)
        books = self.books()
        sums = {(book.payments, book.amount_msat) for book in books}
        assert len(sums) == 1, f"the books differ: {books}"

    # --- the parts of scenes ---------------------------------------------------------------------

    async def _ask(self, text: str, wanted: str, *, first_line: bool = False) -> None:
        self.say("tenant", text)
        answer = await self.tenant.ask(text, wanted)
        self._heard(answer.splitlines()[0] if first_line else answer)

    async def _hear_paid(self, how: str) -> None:
        text = await self.tenant.hear(lambda heard: heard.startswith("Paid"))
        assert how in text, f"paid, but not {how}: {text[:80]}"
        self.said_paid.append(text)
        self._heard(text)

    def _heard(self, text: str) -> None:
        self.say("purser", _shorten(text))

    async def _month(self) -> None:
        self.say("clock", "a month passes at Stripe; signatures and expiries stay in real time")
        await self.town.stripe.advance(MONTH_S)

    async def _probe(self) -> None:
        """Look at the relay as any client does: its NIP-11 document, by its own name."""
        url = self.town.relay_host.api_url
        headers = {
            "Host": f"{RELAY}.{self.town.relay_domain}",
            "Accept": "application/nostr+json",
        }
        async with httpx.AsyncClient() as client:
            answer = await client.get(url, headers=headers)
        assert answer.status_code == 200, f"the relay answers {answer.status_code}"
        self.say("relay", f"{RELAY} answers NIP-11: {answer.json().get('name') or 'up'}")

    # --- books ----------------------------------------------------------------------------------

    def _open_invoices(self) -> list[str]:
        listed = self.town.stripe.world.newest("invoice")
        return [str(i["id"]) for i in listed if i["status"] in ("draft", "open")]

    def books(self) -> list[Book]:
        """Tenant's, Stripe's and both wallets': the same number of payments, the same msat."""
        price = Decimal(self.town.rates.prices["usd"])
        paid = [i for i in self.town.stripe.world.newest("invoice") if i["status"] == "paid"]
        total_minor = sum(int(i["amount_paid_off_stripe"] or 0) for i in paid)
        told_minor = sum(_amount_in(text) for text in self.said_paid)
        sent = [*self.town.tenant_wallet.transactions(), *self.hand.transactions()]
        out = [t for t in sent if isinstance(t, Payment) and t.state == "settled"]
        received = [t for t in self.town.operator_wallet.transactions() if t.state == "settled"]
        return [
            Book(
                "tenant's messages",
                len(self.said_paid),
                fiat_to_msat(told_minor, "usd", price),
                f"{format_fiat(told_minor, 'usd')} said to be paid",
            ),
            Book(
                "Stripe's invoices",
                len(paid),
                fiat_to_msat(total_minor, "usd", price),
                f"{format_fiat(total_minor, 'usd')} paid out of band",
            ),
            Book(
                "tenant's wallets",
                len(out),
                sum(t.amount_msat for t in out),
                "one payment over NWC a month, one by hand",
            ),
            Book(
                "operator's wallet",
                len(received),
                self.town.operator_wallet.balance_msat,
                "received",
            ),
        ]


def _amount_in(text: str) -> int:
    """`Paid …: $5.00 for …` in cents."""
    word = next(word for word in text.split() if word.startswith("$"))
    return int(Decimal(word.strip("$.,")) * 100)


def _shorten(text: str) -> str:
    """A message on one line, its bolt11 cut."""
    lines = (" ".join(_cut(word) for word in line.split()) for line in text.splitlines())
    return " / ".join(line for line in lines if line)


def _cut(word: str) -> str:
    return word if len(word) < 70 else f"{word[:24]}…{word[-6:]}"
