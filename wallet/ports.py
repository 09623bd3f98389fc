"""What `wallet` asks of others, and what it offers to `billing`: Payee, Payer, NwcTransport.

All amounts are integer msat, all times integer epoch seconds (wire time), all hashes, keys and
event ids lower-case hex. Expected answers are return values; an exception is a bug.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from wallet.bolt11 import Bolt11
from wallet.nwc_uri import NwcUri
from wallet.outcome import PayOutcome

Encryption: TypeAlias = Literal["nip44_v2", "nip04"]


# --- transport: wallet speaks NIP-47 JSON, the transport speaks Nostr ---------------------------


@dataclass(frozen=True, slots=True)
class SealedRequest:
    """A signed, encrypted kind 23194 event, storable before anything is sent (M1)."""

    event_id: str
    event_json: str
    method: str
    encryption: Encryption
    created_at: int
    expiration: int


@dataclass(frozen=True, slots=True)
class NotSent:
    """Certainly not written to any socket: no connection, guard refused, or too late."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sent:
    """Written to one relay. `accepted` is that relay's OK (None: it gave none in time)."""

    relay_url: str
    accepted: bool | None
    message: str = ""


PublishAnswer: TypeAlias = Sent | NotSent


@dataclass(frozen=True, slots=True)
class Reply:
    """A decrypted kind 23195 (request_id set) or 23196/23197 notification (request_id None).

    `content` is the decrypted text, not yet parsed; the transport has verified the signature and
    that the author is the wallet's key.
    """

    event_id: str
    request_id: str | None
    content: str
    created_at: int


ReplySink: TypeAlias = Callable[[Reply], None]


class Subscription(Protocol):
    """A standing query for replies of one connection; lives until closed."""

    async def ready(self, timeout_s: float) -> bool:
        """True once at least one relay confirmed the query (EOSE or open socket after REQ)."""
        ...

    async def close(self) -> None: ...


class NwcTransport(Protocol):
    """NIP-47 over Nostr relays; implemented by `bot.nostr.nwc_transport`."""

    def seal(
        self,
        uri: NwcUri,
        method: str,
        params: Mapping[str, Any],
        *,
        encryption: Encryption,
        now: int,
        expiration: int,
    ) -> SealedRequest:
        """Encrypt `{"method","params"}` to the wallet and sign with the connection's secret."""
        ...

    async def publish(
        self,
        uri: NwcUri,
        request: SealedRequest,
        *,
        one_relay: bool = False,
        permit: Callable[[], bool] | None = None,
        earlier: Sent | None = None,
    ) -> PublishAnswer:
        """Write the request. Never queues: no open socket within the time limit -> NotSent.

        `one_relay`: exactly one relay, one write (pay requests, M3). `permit` is called
        synchronously right before the write; False -> NotSent. `earlier`, with `one_relay`: the
        very same request was written before, so another relay is taken where one is open; the
        same one only if it gave no answer.
        """
        ...

    def subscribe(self, uri: NwcUri, sink: ReplySink) -> Subscription:
        """Deliver every reply and notification for this connection, late ones too."""
        ...

    async def info_event(self, uri: NwcUri) -> Mapping[str, Any] | None:
        """The newest kind 13194 as {"methods": [...], "encryption": [...], "notifications": [...]};
        None when not found (which does not mean nip04)."""
        ...


# --- what the wallet client offers --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No usable answer: silence, lost socket, or a reply that could not be read."""

    reason: str


@dataclass(frozen=True, slots=True)
class WalletError:
    """The wallet answered with an error (both body shapes are understood)."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class WalletInfo:
    """Answer of `get_info`, every field optional in practice."""

    methods: frozenset[str] = frozenset()
    notifications: frozenset[str] = frozenset()
    network: str | None = None
    alias: str | None = None
    pubkey: str | None = None
    encryption: Encryption = "nip44_v2"


@dataclass(frozen=True, slots=True)
class Budget:
    """Answer of `get_budget` (advisory); None: no budget set."""

    used_msat: int
    total_msat: int
    renews_at: int | None


@dataclass(frozen=True, slots=True)
class Transaction:
    """A NIP-47 transaction as told by a wallet. Only `is_incoming_settled` proves money (M6)."""

    payment_hash: str
    direction: Literal["incoming", "outgoing"] | None
    state: str | None
    amount_msat: int | None
    settled_at: int | None
    created_at: int | None
    expires_at: int | None
    preimage: str | None = field(default=None, repr=False)
    bolt11: str | None = None

    @property
    def is_incoming_settled(self) -> bool:
        """`incoming` and `settled`; with no state at all, a `settled_at` (M6)."""
        return self.direction == "incoming" and self._says_settled

    @property
    def is_outgoing_settled(self) -> bool:
        """The same of a payment that went out: a word, of which the preimage is the proof."""
        return self.direction == "outgoing" and self._says_settled

    @property
    def _says_settled(self) -> bool:
        if self.state is not None:
            return self.state.lower() == "settled"
        return self.settled_at is not None and self.settled_at > 0

    @property
    def is_accepted(self) -> bool:
        """Held by our wallet but not settled: not dead, not paid."""
        return self.state is not None and self.state.lower() == "accepted"


@dataclass(frozen=True, slots=True)
class NotFound:
    """The wallet says it does not know this payment hash."""

    code: str = "NOT_FOUND"


LookupAnswer: TypeAlias = Transaction | NotFound | WalletError | Unreachable


@dataclass(frozen=True, slots=True)
class BadBolt11:
    """The wallet returned a payment request that must not be used, and why."""

    reason: str


MakeInvoiceAnswer: TypeAlias = Bolt11 | BadBolt11 | WalletError | Unreachable


@dataclass(frozen=True, slots=True)
class PayReply:
    """An observed answer to a stored pay request, early or late."""

    request_id: str
    outcome: PayOutcome


@runtime_checkable
class Payee(Protocol):
    """The operator's wallet, receive-only (M6)."""

    async def make_invoice(
        self, amount_msat: int, description: str, expiry_s: int
    ) -> MakeInvoiceAnswer:
        """A fresh payment request, already decoded and checked against what was asked."""
        ...

    async def lookup_invoice(self, payment_hash: str) -> LookupAnswer: ...

    async def get_info(self) -> WalletInfo | WalletError | Unreachable: ...

    async def list_incoming(self, since: int) -> list[Transaction] | WalletError | Unreachable:
        """Incoming settled transactions since then; WalletError NOT_IMPLEMENTED if not offered."""
        ...


@runtime_checkable
class Receiver(Protocol):
    """Any wallet that can be asked for a payment request to itself: where a refund goes."""

    async def make_invoice(
        self, amount_msat: int, description: str, expiry_s: int
    ) -> MakeInvoiceAnswer:
        """Decoded and checked: exactly this amount, the right network, a sane expiry (K10)."""
        ...


@runtime_checkable
class Payer(Protocol):
    """A tenant's wallet. Paying is split: prepare (no I/O), then publish what was stored."""

    async def probe(self) -> WalletInfo | WalletError | Unreachable:
        """`get_info` (or `get_balance`) within 20 s: M3 wants it within a minute of each pay."""
        ...

    async def get_balance(self) -> int | WalletError | Unreachable:
        """Balance in msat."""
        ...

    async def get_budget(self) -> Budget | WalletError | Unreachable | None: ...

    def prepare_pay(self, bolt11: str, *, now: int, expiration: int) -> SealedRequest:
        """Seal a `pay_invoice`; to be stored and committed before `publish_pay`."""
        ...

    async def publish_pay(
        self, request: SealedRequest, *, permit: Callable[[], bool]
    ) -> PublishAnswer:
        """Write the stored request once, to one relay, on an open socket, or not at all (M3)."""
        ...

    async def resend_pay(
        self, request: SealedRequest, earlier: Sent, *, permit: Callable[[], bool]
    ) -> PublishAnswer:
        """Write the very same request once more, after `earlier`: the only resend there is (M3).

        A wallet that got both copies knows the event by its id. From here on a refusal that may
        be of one copy only proves nothing (M5): the caller has stored that before it calls.
        """
        ...

    async def lookup_outgoing(self, payment_hash: str) -> LookupAnswer: ...
