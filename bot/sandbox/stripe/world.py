"""Everything the embedded Stripe knows: objects, due instants, emitted events, switches."""

from __future__ import annotations

import heapq
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from bot.sandbox.stripe.clock import SandboxClock
from bot.sandbox.stripe.errors import Obj, missing

API_VERSION = "2026-10-28.endive"
_ALPHABET = string.ascii_letters + string.digits
DAY_S = 86400
HOUR_S = 3600


@dataclass(slots=True)
class Settings:
    """Dashboard settings, and switches for behaviours that facts mark unverified."""

    account_id: str = "acct_1PurserSandbox00"
    account_name: str = "Purser sandbox"
    after_last_retry: Literal["cancel", "unpaid", "past_due"] = "past_due"
    """What becomes of a subscription whose invoice the last retry could not collect."""
    retry_days: tuple[int, ...] = (3, 5, 7)
    """Days between the automatic card retries."""
    draft_s: int = HOUR_S
    """A renewal's draft finalizes this long after its webhooks were delivered."""
    incomplete_s: int = 23 * HOUR_S
    """Time to pay a first invoice before the subscription expires."""
    send_invoice_grace_days: int = 30
    """After due_date, for send_invoice subscriptions, until `after_last_retry` applies."""
    overdue_automation: bool = False
    """`invoice.overdue` fires only when the operator configured the automation."""
    out_of_band_activates: bool = True
    """[unv] paid_out_of_band on the first invoice makes an incomplete subscription active."""
    incomplete_is_locked: bool = True
    """[unv] an incomplete subscription takes only metadata and payment-source updates."""
    requests_per_second: int = 0
    """Above it 429; 0 for no limit. Stripe's test mode allows 25 (facts, Limits)."""
    finalization_fails: bool = False
    """Finalizing ends in `invoice.finalization_failed`, as with a tax or address problem."""
    portal_configured: bool = True
    """Whether the customer portal was set up in the Dashboard; without it there are no sessions."""
    pages_url: str = ""
    """Where the links of hosted pages lead; empty for Stripe's own addresses."""
    idempotency_retention_s: int = DAY_S
    """Keys are forgotten after this (wire time); Stripe promises at least 24 h."""


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What `event.request` says about the call that caused an event."""

    id: str
    idempotency_key: str | None


@dataclass(slots=True)
class World:
    """State in memory; handlers run to their end without awaiting, so each call is atomic."""

    clock: SandboxClock = field(default_factory=SandboxClock)
    settings: Settings = field(default_factory=Settings)
    rng: random.Random = field(default_factory=random.SystemRandom)
    tables: dict[str, dict[str, Obj]] = field(default_factory=dict)
    by_id: dict[str, Obj] = field(default_factory=dict)
    on_event: list[Callable[[Obj], None]] = field(default_factory=list)
    request: RequestInfo | None = None
    _due: list[tuple[int, int, str, str]] = field(default_factory=list)
    _due_seq: int = 0

    def now(self) -> int:
        return self.clock.now()

    def new_id(self, prefix: str, length: int = 24) -> str:
        """`prefix_` and base62 letters, the look of Stripe's ids."""
        return f"{prefix}_{''.join(self.rng.choices(_ALPHABET, k=length))}"

    # -- objects -----------------------------------------------------------------------------
    def table(self, kind: str) -> dict[str, Obj]:
        """All objects of a kind in order of creation."""
        return self.tables.setdefault(kind, {})

    def add(self, obj: Obj) -> Obj:
        self.table(str(obj["object"]))[obj["id"]] = obj
        self.by_id[obj["id"]] = obj
        return obj

    def remove(self, obj: Obj) -> None:
        self.table(str(obj["object"])).pop(obj["id"], None)
        self.by_id.pop(obj["id"], None)

    def get(self, kind: str, object_id: str, param: str = "id", *, status: int = 404) -> Obj:
        """Errors: `resource_missing`, 404 for the path's object and 400 for a body's."""
        obj = self.table(kind).get(object_id)
        if obj is None:
            raise missing(_TITLE.get(kind, kind), object_id, param, status=status)
        return obj

    def newest(self, kind: str) -> Iterator[Obj]:
        """Newest first, as every Stripe list is ordered."""
        return reversed(list(self.table(kind).values()))

    # -- what comes due ----------------------------------------------------------------------
    def schedule(self, at_s: int, kind: str, object_id: str) -> None:
        """A hint; whoever takes it checks the object again, so stale ones do no harm."""
        self._due_seq += 1
        heapq.heappush(self._due, (at_s, self._due_seq, kind, object_id))

    def next_due(self) -> int | None:
        return self._due[0][0] if self._due else None

    def take_due(self, at_s: int) -> tuple[str, str] | None:
        """The earliest `(kind, object id)` due at or before `at_s`."""
        if not self._due or self._due[0][0] > at_s:
            return None
        _, _, kind, object_id = heapq.heappop(self._due)
        return kind, object_id

    # -- events ------------------------------------------------------------------------------
    def emit(self, type_: str, obj: Obj, previous: Obj | None = None) -> Obj:
        """Store an event with a snapshot of the object and hand it to the delivery."""
        data: Obj = {"object": view(self, obj)}
        if previous is not None:
            data["previous_attributes"] = previous
        event: Obj = {
            "id": self.new_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now(),
            "data": data,
            "livemode": False,
            "pending_webhooks": 0,
            "request": {
                "id": self.request.id if self.request else None,
                "idempotency_key": self.request.idempotency_key if self.request else None,
            },
            "type": type_,
            "_failed": False,
        }
        self.add(event)
        for listener in self.on_event:
            listener(event)
        return event

    def emit_change(self, type_: str, obj: Obj, before: Obj) -> Obj | None:
        """`emit` with `previous_attributes`; nothing when nothing visible changed."""
        previous = difference(before, view(self, obj))
        return self.emit(type_, obj, previous) if previous else None


View = Callable[[World, Obj, Obj], None]
_views: dict[str, View] = {}
_TITLE = {
    "payment_method": "PaymentMethod",
    "invoice_payment": "invoice payment",
    "setup_intent": "setupintent",
    "subscription_item": "subscription item",
    "webhook_endpoint": "webhook endpoint",
    "customer_balance_transaction": "customer balance transaction",
}


def viewer(kind: str) -> Callable[[View], View]:
    """Registers what fills the derived fields of a kind: `(world, stored, shown)`."""

    def register(fn: View) -> View:
        _views[kind] = fn
        return fn

    return register


def view(world: World, obj: Obj) -> Obj:
    """The public form: a deep copy without private keys, derived fields filled in."""
    shown = {k: _copy(v) for k, v in obj.items() if not k.startswith("_")}
    fill = _views.get(str(obj.get("object")))
    if fill and not obj.get("deleted"):
        fill(world, obj, shown)
    return shown


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_copy(v) for v in value]
    return value


def list_of(data: list[Obj], url: str, has_more: bool = False) -> Obj:
    """Stripe's list envelope."""
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def difference(before: Obj, after: Obj) -> Obj:
    """Former values of what changed, nested maps by key, as `previous_attributes` shows them."""
    out: Obj = {}
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict) and old.get("object") != "list":
            out[key] = difference(old, new)
        else:
            out[key] = old
    return out
