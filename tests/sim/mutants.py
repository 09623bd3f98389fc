"""Planted bugs: each breaks one rule in the real code while it is entered, none stands in it."""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from billing import (
    collection,
    dunning,
    dunning_clock,
    good_standing,
    handlers,
    lease,
    observations,
    orders,
    payer_lookups,
    payments,
    resolver,
    subscription_changes,
    subscription_sync,
)
from billing.model import AttemptState, PaymentAttempt, RequestState
from billing.payments import AttemptSeen, RequestSeen
from billing.rails import card, choice, issue, nwc
from billing.settlements import Placer
from billing.store import operations, tenants
from billing.store import payments as payments_store
from billing.unit import LEASE
from tests.sim.bot import Bot
from tests.sim.mutants_end import (
    card_never_after_wallet,
    credit_in_silence,
    credit_taken_and_left,
    money_without_a_line,
    nobody_hears_of_the_deaf,
    offers_for_ever,
    receipt_forgotten,
    together,
)
from tests.sim.run import Result, run_seed
from tests.sim.years import run_years
from wallet.outcome import Refused, Unknown
from wallet.ports import NotFound, Transaction, Unreachable, WalletError


def unknown_is_failed() -> Any:
    """PAYMENT_FAILED is taken for a refusal (M5)."""
    real = observations.apply_outcome

    async def wrong(rt: Any, unit: Any, attempt: Any, outcome: Any) -> None:
        if isinstance(outcome, Unknown):
            outcome = Refused(outcome.code, outcome.reason)
        await real(rt, unit, attempt, outcome)

    return patch.object(observations, "apply_outcome", wrong)


def refusal_after_resend() -> Any:
    """A refusal is believed although two copies of the request went out (M5)."""
    real = observations.apply_outcome

    async def wrong(rt: Any, unit: Any, attempt: Any, outcome: Any) -> None:
        await real(rt, unit, dataclasses.replace(attempt, writes=min(attempt.writes, 1)), outcome)

    return patch.object(observations, "apply_outcome", wrong)


def payer_lookup_refuses() -> Any:
    """The payer's wallet is asked, and its "not found" or "failed" ends the attempt (M5)."""
    real = payer_lookups.read_payer_lookup

    def wrong(payment_hash: str, answer: Any) -> Any:
        is_failed = isinstance(answer, Transaction) and answer.state == "failed"
        if is_failed or isinstance(answer, NotFound):
            return Refused("NOT_FOUND", "it knows of no payment")
        return real(payment_hash, answer)

    return patch.object(payer_lookups, "read_payer_lookup", wrong)


def intent_after_effect() -> Any:
    """The attempt is stored once the wallet was asked (M1)."""

    async def wrong(self: Any, invoice: Any, connection: Any, payer: Any, request: Any) -> str:
        sealed = payer.prepare_pay(
            request.bolt11, now=self.rt.clock.now(), expiration=request.expires_at - 60
        )
        await payer.publish_pay(sealed, permit=self.rt.fence.is_held)
        attempt = self._intent(invoice, connection, request, sealed)
        async with self.rt.unit() as unit:
            await nwc.payments.insert_attempt(unit.tx, attempt)
            await unit.tx.execute("invoices.count_nwc_try", id=invoice.id)
            await observations.observe_attempt(
                self.rt, unit, attempt, AttemptSeen.CLAIMED_FOR_WRITE
            )
        return "started"

    return patch.object(nwc.NwcRail, "_pay", wrong)


def in_flight_failed_on_restart() -> Any:
    """What was in flight when the process ended is given up at the start (M5, M8)."""
    real = Bot._put_to_work

    def wrong(self: Bot) -> None:
        real(self)
        self.life.spawn("clean up", _give_up(self))

    async def _give_up(bot: Bot) -> None:
        async with bot.rt.unit() as unit:
            live = await unit.tx.fetch_all(PaymentAttempt, "payments.live_attempts")
            for attempt in live:
                if attempt.state is AttemptState.IN_FLIGHT:
                    await observations.observe_attempt(
                        bot.rt, unit, attempt, AttemptSeen.NOT_WRITTEN, outcome="RESTARTED"
                    )

    return patch.object(Bot, "_put_to_work", wrong)


def new_request_before_death() -> Any:
    """Another automatic rail starts at expiry, without margin or look-up (M2, M4)."""

    def wrong(request: Any, *, now: int) -> bool:
        return request.state is not RequestState.OPEN

    def early(request: Any, *, now: int, people_only: bool) -> Any:
        seen = RequestSeen.PROVEN_UNPAID if now >= request.expires_at else RequestSeen.UNPAID
        return payments.LookupReading(seen, now, 1, 0)

    return together(
        patch.object(choice, "is_beyond_margin", wrong),
        patch.object(issue, "is_beyond_margin", wrong),
        patch.object(payments, "_read_unpaid", early),
    )


def key_from_arguments() -> Any:
    """The idempotency key is made of what is asked, not stored for the attempt (M11)."""
    real = operations.begin

    async def wrong(tx: Any, rt: Any, kind: str, subject: str) -> Any:
        operation = await real(tx, rt, kind, subject)
        return dataclasses.replace(operation, id=f"op_{kind}_{subject}")

    new = subscription_sync.new_change

    def planned(rt: Any, tenant: str, kind: str, quantities: str, relays: Any, **more: Any) -> Any:
        key = f"{tenant[:8]}:{kind}:{quantities}"
        return dataclasses.replace(
            new(rt, tenant, kind, quantities, relays, **more),
            items_operation_id=f"items:{key}",
            invoice_operation_id=f"invoice:{key}",
        )

    return together(
        patch.object(operations, "begin", wrong),
        patch.object(subscription_sync, "new_change", planned),
    )


def payload_trusted() -> Any:
    """An event's payload is believed instead of the object fetched again (C4)."""
    real = handlers.Handlers._invoice

    async def wrong(self: Any, event: Any) -> Any:
        view = await real(self, event)
        said = json.loads(event.payload)["data"]["object"]
        if view is None:
            return view
        return dataclasses.replace(
            view,
            status=said.get("status", view.status),
            amount_remaining_minor=said.get("remaining", view.amount_remaining_minor),
        )

    return patch.object(handlers.Handlers, "_invoice", wrong)


def error_is_unpaid() -> Any:
    """A look-up that fails or finds nothing says unpaid (M2, M6)."""
    real = resolver.read_lookup

    def wrong(request: Any, answer: Any, **more: Any) -> Any:
        if isinstance(answer, Unreachable | WalletError | NotFound):
            answer = Transaction(
                request.payment_hash, "incoming", "pending", request.amount_msat, None, None, None
            )
        return real(request, answer, **more)

    return patch.object(resolver, "read_lookup", wrong)


def late_money_ignored() -> Any:
    """What arrives for a dead request changes nothing any more (M9)."""
    dead = payments.RequestRow(RequestState.DEAD)
    return patch.dict(
        payments.REQUEST_TABLE, {(RequestState.DEAD, payments.RequestSeen.SETTLED): dead}
    )


def lock_per_process() -> Any:
    """Two processes both think that they are alone (M3)."""

    async def take(self: Any) -> bool:
        async with self.engine.transaction() as tx:
            await tx.execute("leases.ensure", name=LEASE)
        self._expires_at = 1 << 60
        return True

    async def renew(self: Any) -> bool:
        return True

    return together(
        patch.object(lease.Lease, "take", take), patch.object(lease.Lease, "renew", renew)
    )


def card_without_intent() -> Any:
    """The card is charged with no row that says so (M1, M4)."""

    async def wrong(self: Any, invoice: Any) -> str:
        async with self.rt.unit() as unit:
            operation = await operations.begin(unit.tx, self.rt, "pay_card", invoice.id)
        try:
            await self.stripe.pay_by_card(operation.id, invoice.id, permit=lambda: True)
        finally:
            async with self.rt.unit() as unit:
                await operations.finish(unit.tx, operation.id, "called", now=unit.now)
        return "started"

    return patch.object(card.CardRail, "start", wrong)


def void_money_dropped() -> Any:
    """Money for an invoice that is void counts as placed (M9)."""

    async def wrong(self: Any, unit: Any, money: Any, amount_minor: int) -> None:
        await payments_store.place_settlement(
            unit.tx,
            money,
            money.state.__class__.CREDITED,
            target_invoice_id=None,
            credit_minor=0,
            credit_operation_id=None,
            next_try_at=None,
        )

    return patch.object(Placer, "_to_credit", wrong)


def shown_is_sent_to_a_wallet() -> Any:
    """A request that a person holds is also sent to the wallet (M4)."""

    def wrong(s: Any, request: Any) -> bool:
        return bool(request.expires_at - s.now >= choice.REUSE_LEFT_S)

    return patch.object(choice, "_is_unused", wrong)


def hash_not_noted() -> Any:
    """The hash is not written into the invoice's metadata (M1)."""

    async def wrong(self: Any, request: Any) -> None:
        async with self.rt.unit() as unit:
            await unit.tx.execute("payments.note_request", id=request.id, now=unit.now)

    return patch.object(issue.Issuer, "note", wrong)


def claimed_preimage_is_paid() -> Any:
    """What the payer says, or a preimage in a look-up, counts as money (M6)."""
    real = resolver.read_lookup

    def wrong(request: Any, answer: Any, **more: Any) -> Any:
        if isinstance(answer, Transaction) and answer.preimage:
            answer = dataclasses.replace(answer, state="settled", settled_at=more["now"])
        return real(request, answer, **more)

    return patch.object(resolver, "read_lookup", wrong)


def open_auto_advance() -> Any:
    """Stripe's own collection is not stopped first (M4)."""
    real = collection.choose

    def wrong(s: Any) -> Any:
        return real(dataclasses.replace(s, view=dataclasses.replace(s.view, auto_advance=False)))

    return patch.object(collection, "choose", wrong)


def held_is_nothing() -> Any:
    """Money that our wallet holds for a dead request does not keep the next rail away (M4)."""

    def wrong(request: Any, *, now: int) -> bool:
        dies_at = request.expires_at + request.margin_s
        is_over = request.state is not RequestState.OPEN
        return is_over and now >= dies_at and (request.last_lookup_at or 0) >= dies_at

    return together(
        patch.object(choice, "is_beyond_margin", wrong),
        patch.object(payments, "is_beyond_margin", wrong),
    )


def dunning_through_outage() -> Any:
    """Time counts for dunning although the bot, Stripe or our wallet was away (K7)."""
    real = dunning_clock.advance

    def wrong(clock: Any, *, now: int, billing_now: int, down: Any, away_after_s: int) -> Any:
        last = clock.beat_billing_at if clock.beat_billing_at is not None else billing_now
        moved = real(clock, now=now, billing_now=billing_now, down=(), away_after_s=away_after_s)
        elapsed_s = clock.elapsed_s + max(0, billing_now - last)
        return dataclasses.replace(moved, elapsed_s=elapsed_s)

    return patch.object(dunning_clock, "advance", wrong)


def written_late() -> Any:
    """Neither clock nor lease is looked at before the write (M3)."""
    real = nwc.NwcRail._publish

    async def wrong(self: Any, payer: Any, sealed: Any, attempt: Any, not_after: int) -> None:
        class Always:
            async def publish_pay(self, request: Any, *, permit: Any) -> Any:
                return await payer.publish_pay(request, permit=lambda: True)

            async def resend_pay(self, request: Any, earlier: Any, *, permit: Any) -> Any:
                return await payer.resend_pay(request, earlier, permit=lambda: True)

        await real(self, Always(), sealed, attempt, not_after)

    return patch.object(nwc.NwcRail, "_publish", wrong)


def trusts_who_owes() -> Any:
    """In good standing is everybody with a subscription, whatever is owed (M12)."""

    async def wrong(unit: Any, pubkey: str, provision: str) -> bool:
        tenant = await tenants.get(unit.tx, pubkey)
        is_running = tenant is not None and tenant.subscription_status == "active"
        return provision == "good_standing" and is_running

    return patch.object(subscription_sync, "owes_nothing", wrong)


def provided_without_a_seat() -> Any:
    """Who is trusted gets the relay, and Stripe is never told of it (M12)."""
    real = subscription_changes.Changer._update

    async def wrong(self: Any, tenant: Any, change: Any, prorations: Any) -> Any:
        if change.kind == "add_later":
            return await self.stripe.subscription(tenant.subscription_id)
        return await real(self, tenant, change, prorations)

    return patch.object(subscription_changes.Changer, "_update", wrong)


def credit_for_the_unpaid() -> Any:
    """Who stops is given credit for the rest of the period, paid or not (M10)."""

    async def wrong(unit: Any, tenant: Any, since: int) -> bool:
        return True

    return together(
        patch.object(good_standing, "credit_is_due", wrong),
        patch.object(subscription_sync, "credit_is_due", wrong),
        patch.object(orders, "credit_is_due", wrong),
    )


def night_is_day() -> Any:
    """Dunning does not look at the clock on the operator's wall."""
    return patch.object(dunning.Quiet, "morning_after", lambda self, at: at)


WITHIN: dict[Callable[[], Any], int] = {
    unknown_is_failed: 30,
    intent_after_effect: 20,
    in_flight_failed_on_restart: 400,
    new_request_before_death: 30,
    key_from_arguments: 60,
    payload_trusted: 60,
    error_is_unpaid: 40,
    late_money_ignored: 60,
    lock_per_process: 20,
    card_without_intent: 20,
    void_money_dropped: 40,
    shown_is_sent_to_a_wallet: 60,
    hash_not_noted: 20,
    claimed_preimage_is_paid: 20,
    open_auto_advance: 60,
    held_is_nothing: 300,
    written_late: 60,
    refusal_after_resend: 100,
    payer_lookup_refuses: 120,
    dunning_through_outage: 60,
    trusts_who_owes: 60,
    provided_without_a_seat: 30,
    credit_for_the_unpaid: 100,
    night_is_day: 80,
    receipt_forgotten: 20,
    card_never_after_wallet: 20,
    credit_in_silence: 20,
    money_without_a_line: 20,
    nobody_hears_of_the_deaf: 30,
    credit_taken_and_left: 90,
    offers_for_ever: 20,
}
"""How many seeds, from 0 on, find each. Some three times what it took when it was written down
(docs/simulation.md): the world goes on being widened, and then the same seeds are other lives."""
SETTINGS = {
    "trusts_who_owes": ("good_standing",),
    "provided_without_a_seat": ("good_standing",),
    "credit_for_the_unpaid": ("now_with_credit",),
    "night_is_day": ("quiet_hours",),
}
"""The operator's settings in which one is planted; all others are hunted with the defaults."""
SLOW = frozenset({"dunning_through_outage", "nobody_hears_of_the_deaf"})
"""Hunted in months of ten tenants, with the bot away for 40 days (`tests.sim.years.SMALL`): in the
weeks of a seed hardly anybody has been reminded when everything goes away, and hardly ever is an
inbox away for as long as a message is tried."""
MUTANTS = {make.__name__: make for make in WITHIN}


class NoProof(AssertionError):
    """The planted bug crashed, or the seed fails without it: that catches nothing."""


def live(name: str, seed: int) -> Result:
    """One life, as this planted bug is hunted."""
    return run_years(seed) if name in SLOW else run_seed(seed, forced=SETTINGS.get(name, ()))


def hunt(name: str, seeds: range) -> tuple[int, str] | None:
    """Seeds until the planted bug is caught, and the rule that caught it; None: not caught."""
    with MUTANTS[name]():
        for number, seed in enumerate(seeds, 1):
            result = live(name, seed)
            if result.violations:
                first = result.violations[0]
                if first.rule == "bug":
                    raise NoProof(f"{name}: seed {seed}: {first.text[-500:]}")
                return number, f"{first.rule}: {first.text[:100]}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutants")
    parser.add_argument("--seeds", type=int, help="look at so many, whatever is stated")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("names", nargs="*", default=[])
    args = parser.parse_args()
    missed = 0
    print("| planted bug | what it does | caught by | seeds | within |")
    print("| --- | --- | --- | --- | --- |")
    for name in args.names or MUTANTS:
        within = args.seeds or WITHIN[MUTANTS[name]]
        caught = hunt(name, range(args.start, args.start + within))
        if caught is not None:
            seed = args.start + caught[0] - 1
            if live(name, seed).violations:
                raise NoProof(f"seed {seed} fails without {name}")
        missed += caught is None
        rule, seeds = (caught[1].partition(":")[0], str(caught[0])) if caught else ("NOBODY", "-")
        what = (MUTANTS[name].__doc__ or "").rstrip(".")
        print(f"| `{name}` | {what} | {rule} | {seeds} | {within} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
