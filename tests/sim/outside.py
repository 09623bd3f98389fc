"""The rest of the outside: Stripe and its webhooks, the relay host, relays that carry messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from billing.errors import StripeUnavailable
from billing.ports import (
    ApplyAnswer,
    DesiredRelay,
    RelayAnswer,
    RelayApplied,
    RelayRefused,
    RelayUnreachable,
)
from billing.views import StripeEvent
from tests.fakes.stripe import FakeStripe
from tests.fakes.stripe_books import Invoice

if TYPE_CHECKING:
    from tests.sim.world import SimWorld


@dataclass
class Fault:
    """What happens to one call on the network."""

    before_s: int = 0
    lost: Exception | None = None
    arrives_s: int | None = None
    reply_lost: Exception | None = None


class Network:
    """Decides, call by call, what the network does."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.rate = 0.0
        self.stripe_down_until = 0

    def fault(self, name: str) -> Fault:
        rng, world = self.world.rng, self.world
        fault = Fault()
        if not world.chaos:
            return fault
        if rng.random() < self.rate:
            fault.before_s = rng.choice((1, 2, 7, 15))
            world.count("slow_call")
        if not name.startswith("stripe."):
            return fault
        if world.clock.now() < self.stripe_down_until:
            world.count("stripe_down")
            fault.lost = StripeUnavailable(name, "503")
        elif rng.random() < self.rate:
            kind = rng.choice(("429", "lost", "after", "after", "late"))
            world.count(f"stripe_{kind}")
            if kind == "after":
                fault.reply_lost = StripeUnavailable(name, "500 after all was done")
            else:
                fault.lost = StripeUnavailable(name, "429" if kind == "429" else "timeout")
            if kind == "late":
                fault.arrives_s = rng.choice((1, 5, 40, 200))
        if fault.lost or fault.reply_lost:
            world.say(f"network: {name} {fault.lost or fault.reply_lost}")
        return fault


class OutsideStripe:
    """The fake account, its events on their way, and what the rules want to see of it."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.gateway = FakeStripe(world.clock)
        self.books = self.gateway.books
        self.gateway.before = self._before
        charge, tell_of = self.books.charge, self.books.tell_of

        def watched_charge(invoice: Invoice) -> bool:
            self.world.rules.on_card(invoice)
            good = charge(invoice)
            self.world.say(f"stripe: card of {invoice.id}: {invoice.card}")
            if invoice.card == "in_progress":
                self.world.after(self.world.rng.choice((30, 3600)), lambda: self.settle(invoice))
            return good

        def watched_tell_of(kind: str, body: dict[str, Any]) -> None:
            tell_of(kind, body)
            event = self.books.events[-1]
            what = {k: body[k] for k in ("status", "remaining") if k in body}
            self.world.say(f"stripe: {kind} {body.get('id')} {what}")
            self.world.told[kind] += 1
            if kind == "invoice.finalized":
                # The first: what is injected later opens nothing anew.
                self.world.opened_at.setdefault(body["id"], self.world.clock.now())
            self.world.webhook(event)

        def watched_tell(kind: str, obj: Any) -> None:
            body = {"id": obj.id, "object": type(obj).__name__.lower()}
            body["customer"] = obj.id if body["object"] == "customer" else obj.customer.id
            more = {k: getattr(obj, k) for k in ("status", "remaining") if hasattr(obj, k)}
            watched_tell_of(kind, {**body, **more})

        self.books.charge = watched_charge  # type: ignore[method-assign]
        self.books.tell = watched_tell  # type: ignore[method-assign]
        self.books.tell_of = watched_tell_of  # type: ignore[method-assign]

    def settle(self, invoice: Invoice) -> None:
        """A card payment in progress comes to its end, written off or not: a bank does not know."""
        if invoice.card != "in_progress" or invoice.status not in ("open", "uncollectible"):
            return
        if self.world.rng.random() < 0.6:
            invoice.card = "paid"
            self.books.mark_paid(invoice)
        else:
            invoice.card = "failed"
            self.books.tell("invoice.payment_failed", invoice)

    def _before(self, name: str, arguments: Mapping[str, Any]) -> None:
        self.world.rules.on_stripe(name, arguments)

    def run(self) -> None:
        self.books.run_to(self.world.clock.billing_now())

    def customer_of(self, tenant: str) -> str | None:
        for customer in self.books.customers.values():
            if customer.metadata.get("purser_pubkey") == tenant:
                return customer.id
        return None


def body_of(event: StripeEvent) -> str:
    return json.dumps(dict(event.raw), sort_keys=True)


class OutsideHost:
    """A relay host (`billing.ports.HostedRelays`)."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.relays: dict[str, DesiredRelay] = {}

    async def apply(self, relay: DesiredRelay) -> ApplyAnswer:
        if self.world.chaos and self.world.rng.random() < self.world.network.rate:
            self.world.count("host_fault")
            if self.world.rng.random() < 0.5:
                self.relays[relay.relay_id] = relay
                self.world.rules.on_relay(relay)
            return self.world.rng.choice(
                (RelayUnreachable("no answer"), RelayRefused("busy", False))
            )
        self.relays[relay.relay_id] = relay
        self.world.rules.on_relay(relay)
        return RelayApplied()

    def url_of(self, relay: DesiredRelay) -> str:
        return f"wss://{relay.host}"

    async def check(self) -> list[str]:
        return []


class OutsideCourier:
    """The relays where people read (`billing.ports.Courier`)."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.down_until = 0

    async def deliver(
        self, message_key: str, recipient: str, kind: str, facts: Mapping[str, object]
    ) -> Sequence[RelayAnswer]:
        url = "wss://inbox.example"
        if self.world.clock.now() < self.down_until:
            self.world.count("message_not_taken")
            return [RelayAnswer(url, False, "blocked")]
        self.world.on_message(recipient, kind, facts)
        if self.world.chaos and self.world.rng.random() < self.world.network.rate:
            self.world.count("message_ok_lost")
            return [RelayAnswer(url, None, "")]
        return [RelayAnswer(url, True, "")]
