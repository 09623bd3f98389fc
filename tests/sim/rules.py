"""Checkers of the money rules at the instant something leaves the bot, by the outside's truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from billing.credit_note import MARK
from billing.invoices import PAID_BY_KEY
from billing.lease import LEASE_S
from billing.payments import PUBLISH_WINDOW_S
from billing.ports import DesiredRelay
from billing.rails.issue import noted_in
from tests.fakes.stripe_books import Invoice
from tests.sim.spending import PREFIX as SPENDING_PREFIX
from tests.sim.stored import check_publish
from tests.sim.trust import Trust
from wallet.ports import SealedRequest

if TYPE_CHECKING:
    from tests.sim.life import Life
    from tests.sim.lightning import LnInvoice
    from tests.sim.world import SimWorld

DUNNING_WINDOW = (
    "SELECT invoice_id, day, taken_at FROM dunning_windows WHERE invoice_id = ? AND "
    "(closed_at IS NULL OR outcome = 'ended')"
)
LAG_S = 2
"""What an instant is worth: a fact the outside made this recently cannot have been known."""


class Rules:
    """One method for each kind of effect."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self.trust = Trust(world)

    def _now(self) -> int:
        return self.world.clock.now()

    def _row(self, sql: str, *values: Any, life: Life | None = None) -> tuple[Any, ...] | None:
        """Of the database of this life; of anybody's where nobody says whose effect it is."""
        connections = [life.connection] if life is not None else self.world.databases()
        for connection in connections:
            row = connection.execute(sql, values).fetchone()
            if row is not None:
                return tuple(row)
        return None

    def _others_alive(self, invoice: LnInvoice, *, auto: bool) -> list[str]:
        """Other requests for the same invoice that somebody holds and that could still settle."""
        found = []
        for other in self.world.payee.of_invoice(invoice.invoice_id):
            if other is invoice or not (other.sent or other.shown_at) or other.tainted:
                continue
            if not other.may_settle(self._now()):
                continue
            if not auto:
                # A person may be shown a new one at expiry, where no wallet was ever at work on
                # the old one or every one refused (M2).
                wallet_done = not other.sent or other.refused
                if wallet_done and self._now() >= other.bolt11.expires_at:
                    continue
            found.append(other.bolt11.payment_hash[:8])
        return found

    def _is_noted(self, invoice: LnInvoice) -> bool:
        at_stripe = self.world.stripe.books.invoices.get(invoice.invoice_id)
        if at_stripe is None:
            return False
        noted = {n.payment_hash: n for n in noted_in(at_stripe.metadata)}
        mine = noted.get(invoice.bolt11.payment_hash)
        if mine is None:
            return False
        invoice.value_minor = mine.amount_minor
        return True

    # --- our wallet is asked for a payment request ----------------------------------------------

    def on_made(self, invoice: LnInvoice) -> None:
        """Its amount is what the invoice is worth at a price of these minutes, or nobody is given
        it (C27)."""
        at_stripe = self.world.stripe.books.invoices[invoice.invoice_id]
        if at_stripe.status != "open" or not invoice.bolt11.amount_msat:
            return
        invoice.value_minor = at_stripe.remaining
        price = at_stripe.remaining * 1_000_000_000 / invoice.bolt11.amount_msat
        # Wallets count in whole sats: of a small amount that is per cents.
        slack = price * 1000 / invoice.bolt11.amount_msat
        seen = (price - slack, price, price + slack)
        if not any(self.world.market.may_be(each, self._now()) for each in seen):
            now = self.world.market.price(self._now())
            invoice.mispriced = f"it is made at {price:.0f} where the price is {now:.0f}"
            self.world.say(f"{invoice.bolt11.payment_hash[:8]}: {invoice.mispriced}")

    # --- who may send -------------------------------------------------------------------------

    def on_lease(self, life: Life) -> None:
        """The database names who works on it."""
        row = self._row("SELECT owner FROM leases WHERE name = 'purser'", life=life)
        if row is not None and row[0] == life.name:
            life.leased_at = self._now()

    def _must_hold(self, life: Life, what: str) -> None:
        """The lease is theirs, or was within its duration: what a file lock or its expiry keeps
        apart (M3)."""
        self.on_lease(life)
        if life.is_on_copy:
            self.world.count("sent_from_copy")
        if life.leased_at is None or self._now() - life.leased_at > LEASE_S:
            self.world.violate("M3", f"{life.name} sends {what} without the lease")

    # --- a pay request leaves -------------------------------------------------------------------

    def on_resend(self, life: Life, tenant: str, request: SealedRequest) -> None:
        """M3: the identical event once more, M5: stored before, so that no refusal is believed."""
        payment_hash = request.event_json.split(" ")[0].removeprefix("lnbcrt1")
        invoice = self.world.payee.invoices[payment_hash]
        name = f"{payment_hash[:8]} of {invoice.invoice_id}"
        self.world.say(f"RESEND {name} to the wallet of {tenant[:4]}")
        self.world.count("resend")
        self._must_hold(life, name)
        if invoice.sent != [request.event_id]:
            self.world.violate("M3", f"a resend for {name} that is not the first one's copy")
        invoice.sent.append(request.event_id)
        row = self._row(
            "SELECT writes, in_flight_at FROM payment_attempts WHERE event_id = ?",
            request.event_id,
            life=life,
        )
        if row is None or row[0] != 2:
            self.world.violate("M5", f"a resend for {name} that its row does not know of: {row}")
        elif self._now() - row[1] > PUBLISH_WINDOW_S or self._now() >= request.expiration:
            self.world.violate("M3", f"a resend for {name} {self._now() - row[1]} s after")

    def on_publish(self, life: Life, tenant: str, request: SealedRequest) -> None:
        violate = self.world.violate
        payment_hash = request.event_json.split(" ")[0].removeprefix("lnbcrt1")
        invoice = self.world.ln[payment_hash]
        name = f"{payment_hash[:8]} of {invoice.invoice_id}"
        self.world.say(f"PAY REQUEST {name} to the wallet of {tenant[:4]}")
        self.world.count("pay_request")
        self._must_hold(life, name)
        if invoice.sent:
            violate("M3", f"a second pay request for {name}")
        invoice.sent.append(request.event_id)
        if invoice.mispriced:
            violate("C27", f"a pay request for {name}: {invoice.mispriced}")
        if invoice.shown_at is not None:
            violate("M4", f"a pay request for {name}, which a person was shown")
        if not self._is_noted(invoice):
            violate("M1", f"a pay request for {name}, whose hash does not stand at Stripe")
        row = self._row(
            "SELECT state, in_flight_at FROM payment_attempts WHERE event_id = ?",
            request.event_id,
            life=life,
        )
        if row is None or row[0] == "prepared":
            violate("M1", f"a pay request for {name} without its intent in flight: {row}")
        elif row[1] is not None and self._now() - row[1] > PUBLISH_WINDOW_S:
            violate("M3", f"a pay request for {name} {self._now() - row[1]} s after its commit")
        check_publish(life, request)
        if alive := self._others_alive(invoice, auto=True):
            violate("M4", f"a pay request for {name} while {alive} could still settle")
        at_stripe = self.world.stripe.books.invoices[invoice.invoice_id]
        if at_stripe.card == "in_progress":
            violate("M4", f"a pay request for {name} while a card payment is in progress")
        if at_stripe.auto_advance:
            violate("M4", f"a pay request for {name} that Stripe may collect by itself")
        owner = at_stripe.customer.metadata.get("purser_pubkey")
        if owner != tenant:
            violate("M4", f"a pay request for {name} to somebody else's wallet")

    # --- a person is shown a payment request ----------------------------------------------------

    def on_shown(self, payment_hash: str) -> None:
        invoice = self.world.ln[payment_hash]
        name = f"{payment_hash[:8]} of {invoice.invoice_id}"
        self.world.say(f"SHOWN {name}")
        if invoice.mispriced:
            self.world.violate("C27", f"a person is shown {name}: {invoice.mispriced}")
        if invoice.shown_at is None:
            invoice.shown_at = self._now()
        if not self._is_noted(invoice):
            self.world.violate("M1", f"{name} is shown, its hash does not stand at Stripe")
        if invoice.sent and not invoice.refused and not invoice.tainted:
            dropped = self._row(
                "SELECT outcome FROM payment_attempts WHERE event_id = ?", invoice.sent[0]
            )
            self.world.violate("M4", f"{name} is shown while a wallet may pay it ({dropped})")
        if alive := self._others_alive(invoice, auto=False):
            self.world.violate("M4", f"{name} is shown while {alive} could still settle")
        at_stripe = self.world.stripe.books.invoices[invoice.invoice_id]
        if at_stripe.card == "in_progress":
            self.world.count("shown_during_card")

    # --- a card is charged ----------------------------------------------------------------------

    def on_card(self, invoice: Invoice) -> None:
        """Called before Stripe tries the card, whoever made it try."""
        now = self.world.stripe.books.now
        self.world.count("card_charge")
        for other in self.world.payee.of_invoice(invoice.id):
            if not (other.sent or other.shown_at) or other.tainted:
                continue
            if other.may_settle(now):
                self.world.violate(
                    "M4",
                    f"the card is charged for {invoice.id} while {other.bolt11.payment_hash[:8]} "
                    f"({other.state}, sent={len(other.sent)}, shown={other.shown_at}) "
                    "could still settle or has",
                )

    # --- our spending wallet is asked to pay a refund --------------------------------------------

    def on_refund(self, request: SealedRequest) -> None:
        violate = self.world.violate
        payment_hash = request.event_json.split(" ")[0].removeprefix(SPENDING_PREFIX)
        invoice = self.world.spender.asked[payment_hash]
        name = f"refund {payment_hash[:8]}"
        self.world.count("refund_sent")
        row = self._row(
            "SELECT id, state, amount_msat, tenant, invoice_id, amount_minor FROM refunds "
            "WHERE event_id = ?",
            request.event_id,
        )
        if row is None or row[1] != "in_flight":
            violate("M1", f"{name} is sent without its intent in flight: {row}")
            return
        if invoice.sent:
            violate("M3", f"{name} is sent twice")
        if invoice.bolt11.amount_msat != row[2]:
            violate("K10", f"{name} is sent over another amount than the operator's")
        if invoice.tenant != row[3]:
            violate("M3", f"{name} goes to somebody else's wallet")
        for other in self.world.spender.asked.values():
            may_arrive = other.paid_at or self._now() < other.bolt11.expires_at + 10_800
            if other.refund_id == row[0] and other.sent and may_arrive:
                violate("M3", f"{name} is sent while another of the same refund may arrive")
        invoice.sent.append(request.event_id)
        invoice.refund_id, invoice.invoice_id, invoice.amount_minor = row[0], row[4], row[5]

    # --- Stripe is told -------------------------------------------------------------------------

    def on_stripe(self, name: str, arguments: Mapping[str, Any]) -> None:
        self.world.say(f"stripe <- {name} {arguments.get('invoice_id', '')}")
        self.trust.on_stripe(name, arguments)
        if name == "pay_out_of_band":
            self._on_marked_paid(arguments["invoice_id"])
        elif name == "pay_by_card":
            row = self._row(
                "SELECT state FROM payment_attempts WHERE operation_id = ?",
                arguments["operation_id"],
            )
            if row is None or row[0] == "prepared":
                self.world.violate("M1", f"a card is charged without its intent: {row}")

    def _on_marked_paid(self, invoice_id: str) -> None:
        at_stripe = self.world.stripe.books.invoices[invoice_id]
        if at_stripe.status == "paid":
            return
        payment_hash = at_stripe.metadata.get(PAID_BY_KEY, "")
        if payment_hash.startswith(MARK):
            self._on_paid_from_credit(at_stripe, payment_hash.removeprefix(MARK))
            return
        money = self.world.ln.get(payment_hash)
        if money is None or money.state != "settled":
            self.world.violate("M10", f"{invoice_id} is marked paid without money")
        elif money.value_minor < at_stripe.remaining:
            self.world.violate("M10", f"{invoice_id} is marked paid with too little money")

    def _on_paid_from_credit(self, invoice: Invoice, spend_id: str) -> None:
        self.world.count("paid_from_credit")
        taken = [a for n, a in self.world.credits if a["operation_id"] == spend_id]
        if not taken:
            self.world.violate("M10", f"{invoice.id} is marked paid from credit; none was taken")
        elif taken[0]["amount_minor"] < invoice.remaining:
            self.world.violate("M10", f"{invoice.id} is marked paid with too little credit")

    # --- a relay is switched --------------------------------------------------------------------

    def on_relay(self, relay: DesiredRelay) -> None:
        if relay.plan == "free":
            return
        carriers = self._carriers(relay.relay_id)
        paid = [i for i in carriers if i.status == "paid"]
        if relay.active and not paid and not self.trust.is_billed_later(relay.relay_id):
            self.world.violate("M12", f"relay {relay.name} is up and nothing was paid for it")
        row = self._row(
            "SELECT stop_requested_at, state, activated_at, lapses_at FROM hosted_relays "
            "WHERE id = ?",
            relay.relay_id,
        )
        # One whose subscription ended at Stripe may be off once its last paid period is over.
        until = max((i.covers[1] or 0 for i in paid), default=0)
        is_over = row is not None and (row[3] is not None or row[1] == "pending_payment")
        if is_over and until <= self.world.clock.billing_now():
            return
        # One that was never up is judged in the end: its payment may not be known yet.
        if row is None or row[0] is not None or row[2] is None or row[1] == "active":
            return
        if not relay.active or relay.limited:
            self._on_cut_off(relay, row[1], carriers)

    def _carriers(self, relay_id: str) -> list[Invoice]:
        books = self.world.stripe.books.invoices
        rows = self.world.connection.execute(
            "SELECT l.invoice_id FROM invoice_relays l JOIN invoices i ON i.id = l.invoice_id "
            "WHERE l.relay_id = ? ORDER BY i.created_at, i.id",
            (relay_id,),
        ).fetchall()
        return [books[i] for (i,) in rows if i in books]

    def _on_cut_off(self, relay: DesiredRelay, state: str, carriers: list[Invoice]) -> None:
        """M13 and K7: something is owed for it, nothing of that had arrived when the step was
        taken, and its owner had all the time that the timeline gives."""
        windows = [
            row
            for i in carriers
            if (row := self._row(DUNNING_WINDOW, i.id)) is not None and row[1] is not None
        ]
        if not windows:
            self.world.violate("M13", f"relay {relay.name} is cut off ({state}) though paid")
            return
        invoice_id, day, taken_at = windows[0]
        for money in self.world.ln_of[invoice_id]:
            if money.settled_at is not None and money.settled_at + 90 < taken_at:
                self.world.violate("M13", f"relay {relay.name}: {invoice_id} was paid before {day}")
        books = self.world.stripe.books.invoices
        since = max(self.world.opened_at[invoice_id], books[invoice_id].due_at or 0)
        counted_s = self.world.counted_s(since)
        if counted_s < day * 86_400:
            self.world.violate(
                "K7",
                f"relay {relay.name} is {state} by day {day} of {invoice_id}, of which at most "
                f"{counted_s // 3600} h can have counted",
            )
