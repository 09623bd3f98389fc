"""How often wallets are asked: bursts, steady rates, and who has to wait until when.

Our own wallet has one limit, shared by looking up and making. Tenants' wallets have one for each
relay that they are reached by. Everything counts in whole seconds of wire time and is kept in
memory: a new process asks nobody twice for what is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NoReturn

from billing.errors import Paced
from billing.model import Connection, Invoice
from wallet.nwc_uri import hosts_of_masked
from wallet.outcome import LEGACY_SPELLINGS
from wallet.ports import WalletError

BURST: Final = 50
"""Requests to our own wallet at once, unless configured: an ordinary day never has that many."""
PER_SECOND: Final = 10
"""Unless configured. At a month's turn hundreds of requests are open and each is due every half
minute. Operators' wallets are small, some are a phone; money that arrives is told by a notification
anyway."""
REST_S: Final = (15, 30, 60, 120)
"""After RATE_LIMITED, longer each time; no longer than that, since money hangs on the answers."""
OUTAGE_S: Final = 900
"""A wallet that takes no request for so long is down, whatever it calls it: operators are told as
of any other outage."""
SERVICE_BURST: Final = 10
SERVICE_PER_SECOND: Final = 2
"""Payments started over one relay. Each is two events or more, a probe and a pay request, and
relays that limit at all take a few from one client. It makes 7 200 an hour."""
KEPT_SHARE: Final = 5
"""One in so many of a burst is kept for people who wait: renewals never empty a bucket."""
LINE_S: Final = 3600
"""Nobody is told to come later than this: a clock that was set back is no reason to wait."""
MAX_SERVICES: Final = 1000
"""Tenants name relays as they like; those that nobody uses now are forgotten beyond this many."""


def is_rate_limited(answer: object) -> bool:
    """The wallet took no request now (NIP-47's RATE_LIMITED, in any spelling)."""
    if not isinstance(answer, WalletError):
        return False
    return LEGACY_SPELLINGS.get(answer.code, answer.code) == "RATE_LIMITED"


def is_awaited(invoice: Invoice) -> bool:
    """Somebody waits for it right now: who said `pay`, orders, or changes a plan. A renewal has
    time."""
    return invoice.show_wanted > 0 or invoice.billing_reason != "subscription_cycle"


@dataclass(slots=True)
class Bucket:
    """A burst at once, then so many a second."""

    burst: int
    per_second: int
    left: int = field(init=False)
    filled_at: int = 0

    def __post_init__(self) -> None:
        self.left = self.burst

    def fill(self, now: int, more: int = 0) -> int:
        """What has come since the last time, and `more`; returns what it has no room for."""
        full = self._come(now) + more
        self.filled_at = now
        self.left = min(self.burst, full)
        return full - self.left

    def is_full(self, now: int) -> bool:
        """Whether it has a whole burst again."""
        return self._come(now) >= self.burst

    def _come(self, now: int) -> int:
        # A clock that was set back fills nothing.
        return self.left + max(0, now - self.filled_at) * self.per_second


@dataclass(slots=True)
class Turns:
    """A bucket with a line before it: whoever finds it empty is given a second to come again.

    Turns are spread at the bucket's rate, so that a thousand who wait are looked at about once
    each, and not all of them every second. Who comes early keeps the turn. It is a hint, not a
    claim: what is left when one comes decides.
    """

    bucket: Bucket
    _turns: dict[tuple[bool, str], int] = field(default_factory=dict)
    _last: dict[bool, int] = field(default_factory=dict)

    def is_free(self, *, awaited: bool) -> bool:
        """Whether one more may go now."""
        kept = 0 if awaited else self.bucket.burst // KEPT_SHARE
        return self.bucket.left > kept

    def take(self, key: str) -> None:
        """One goes."""
        self.bucket.left -= 1
        self._turns.pop((True, key), None)
        self._turns.pop((False, key), None)

    def next(self, key: str, now: int, *, awaited: bool, not_before: int = 0) -> int:
        """When this one is to come again. Those who are awaited have a line of their own."""
        first = max(now + 1, not_before)
        turn = self._turns.get((awaited, key), 0)
        if first <= turn < first + LINE_S:
            return turn
        rate = self.bucket.per_second
        slot = self._last.get(awaited, 0) + 1
        if not first * rate <= slot < (first + LINE_S) * rate:
            # Nobody is in line: whoever was, has been or will not come.
            self._turns = {k: t for k, t in self._turns.items() if k[0] != awaited}
            slot = first * rate
        self._last[awaited] = slot
        self._turns[awaited, key] = slot // rate
        return slot // rate


@dataclass(slots=True)
class PayeePace:
    """Our own wallet's limit: looking up and making share it, and rest together.

    Half is for making, so that it never starves, and no more than half, since money hangs on the
    look-ups: they also have what making leaves over. Probes and sweeps are few and not counted.
    """

    per_second: int = PER_SECOND
    burst: int = BURST
    looks: Bucket = field(init=False)
    makes: Turns = field(init=False)
    rests_until: int = 0
    rests: int = 0
    _limited_since: int | None = None
    """When it first refused to make one, in a row."""

    def __post_init__(self) -> None:
        making_burst, making_rate = self.burst // 2, self.per_second // 2
        self.makes = Turns(Bucket(making_burst, making_rate))
        self.looks = Bucket(self.burst - making_burst, self.per_second - making_rate)

    def _is_resting(self, now: int) -> bool:
        # A clock that was ahead when the wallet said so, and is right again, is no reason to rest.
        return 0 < self.rests_until - now <= REST_S[-1]

    def _fill(self, now: int) -> None:
        self.looks.fill(now, self.makes.bucket.fill(now))

    def looks_left(self, now: int) -> int:
        """How many look-ups may go out now."""
        self._fill(now)
        return 0 if self._is_resting(now) else max(0, self.looks.left)

    def looked(self, count: int) -> None:
        """So many go out; more than were left are owed."""
        self.looks.left -= count

    def check_make(self, invoice: Invoice, now: int) -> None:
        """Raises `Paced` where no payment request for it can be made now."""
        self._fill(now)
        awaited = is_awaited(invoice)
        if self._is_resting(now) or not self.makes.is_free(awaited=awaited):
            self._defer(invoice, now)

    def make(self, invoice: Invoice, now: int) -> None:
        """One goes out; or raises `Paced`."""
        self.check_make(invoice, now)
        self.makes.take(invoice.id)

    def make_limited(self, invoice: Invoice, now: int) -> None:
        """The answer was RATE_LIMITED. Raises `Paced`, unless that is an outage by now."""
        self.too_many(now)
        if self._limited_since is None:
            self._limited_since = now
        if now - self._limited_since < OUTAGE_S:
            self._defer(invoice, now)

    def _defer(self, invoice: Invoice, now: int) -> NoReturn:
        at = self.makes.next(
            invoice.id,
            now,
            awaited=is_awaited(invoice),
            not_before=self.rests_until if self._is_resting(now) else 0,
        )
        raise Paced(invoice.id, "our own wallet is asked at a pace", at)

    def too_many(self, now: int) -> None:
        """The wallet took no request now. What was asked in the same breath counts once."""
        if self._is_resting(now):
            return
        self.rests_until = now + REST_S[min(self.rests, len(REST_S) - 1)]
        self.rests += 1

    def answered(self) -> None:
        """It answers: the next rest is short again."""
        self.rests = 0

    def made(self) -> None:
        """It made one."""
        self.answered()
        self._limited_since = None


@dataclass(slots=True)
class ServicePaces:
    """Tenants' wallets, by the relays that their connections name.

    One service mostly has a wallet key for each connection, and one relay for all of them: the
    relay's host is what its wallets share. A public relay carries many services, which then wait
    for each other a little; it limits its writers itself, so that is right as well. A connection
    with several relays counts at each, since any of them may carry it. What a wallet answers makes
    no other wait: tenants choose their wallets, and one could hold up the rest by it.
    """

    per_second: int = SERVICE_PER_SECOND
    burst: int = SERVICE_BURST
    _of: dict[str, Turns] = field(default_factory=dict)

    def start(self, connection: Connection, invoice: Invoice, now: int, *, awaited: bool) -> None:
        """A payment over this connection is started now; or raises `Paced`."""
        hosts = hosts_of_masked(connection.masked) or (connection.wallet_pubkey,)
        services = [self._service(host, now) for host in hosts]
        for service in services:
            service.bucket.fill(now)
        busy = [service for service in services if not service.is_free(awaited=awaited)]
        if busy:
            at = max(service.next(invoice.id, now, awaited=awaited) for service in busy)
            raise Paced(invoice.id, "its wallet's service is asked at a pace", at)
        for service in services:
            service.take(invoice.id)

    def _service(self, host: str, now: int) -> Turns:
        if host not in self._of:
            if len(self._of) >= MAX_SERVICES:
                # A full bucket says no more than a new one.
                self._of = {name: t for name, t in self._of.items() if not t.bucket.is_full(now)}
            self._of[host] = Turns(Bucket(self.burst, self.per_second))
        return self._of[host]
