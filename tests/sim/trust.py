"""What operators who trust their tenants allow, and no more: `good_standing`, `now_with_credit`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from billing.good_standing import PERIODS
from billing.preflight import SILENT_TRIES
from tests.fakes.stripe_books import Invoice

if TYPE_CHECKING:
    from tests.sim.world import SimWorld

UNPAID = ("draft", "open", "uncollectible")


class Trust:
    """M12's two exceptions, judged by Stripe's own books where something is done at Stripe."""

    def __init__(self, world: SimWorld) -> None:
        self.world = world
        self._put_in: dict[str, list[str]] = {}

    def on_stripe(self, name: str, arguments: Mapping[str, Any]) -> None:
        if name == "update_items":
            self._on_items(arguments["operation_id"], arguments["prorations"])
        elif name == "cancel_subscription":
            self._on_ended_now(arguments)

    def _change(self, operation_id: str) -> tuple[Any, ...] | None:
        for connection in self.world.databases():
            row: tuple[Any, ...] | None = connection.execute(
                "SELECT kind, tenant, relays, created_at FROM changes WHERE items_operation_id = ?",
                (operation_id,),
            ).fetchone()
            if row is not None:
                return row
        return None

    def _of(self, tenant: str) -> list[Invoice]:
        books = self.world.stripe.books.invoices.values()
        return [i for i in books if i.customer.metadata.get("purser_pubkey") == tenant]

    # --- before it is paid ----------------------------------------------------------------------

    def _on_items(self, operation_id: str, prorations: str) -> None:
        """What comes up at once is for who paid before and owed nothing that was known when it was
        decided, and only where the operator chose that."""
        change = self._change(operation_id)
        if change is None or change[0] not in ("add_later", "upgrade_later"):
            return
        kind, tenant, relays, decided_at = change
        self.world.count(f"provided_{kind}")
        name = f"{kind} of {tenant[:4]}"
        if self.world.settings.provision != "good_standing":
            self.world.violate("M12", f"{name}, though the operator wants it paid first")
        if prorations != "create_prorations":
            self.world.violate("M12", f"{name}, and the rest of the period costs nothing")
        theirs = self._of(tenant)
        if not any(i.status == "paid" for i in theirs):
            self.world.violate("M12", f"{name}, who never paid anything")
        for invoice in theirs:
            if invoice.status in UNPAID and self._was_known(invoice.id, decided_at):
                self.world.violate("M12", f"{name}, who owes {invoice.id}")
        for relay_id in json.loads(relays):
            self._put_in.setdefault(relay_id, []).append(operation_id)

    def _was_known(self, invoice_id: str, decided_at: int) -> bool:
        return any(
            connection.execute(
                "SELECT 1 FROM activity WHERE kind = 'invoice.seen' AND subject = ? AND at < ?",
                (invoice_id, decided_at),
            ).fetchone()
            for connection in self.world.databases()
        )

    def is_billed_later(self, relay_id: str) -> bool:
        """Its seat is in the subscription at Stripe, and its price on the way to an invoice."""
        gateway = self.world.stripe.gateway
        return any(gateway.was_done(operation) for operation in self._put_in.get(relay_id, ()))

    # --- ended before its period is over ----------------------------------------------------------

    def _on_ended_now(self, arguments: Mapping[str, Any]) -> None:
        """Credit is for what was paid, and only where the operator chose that."""
        subscription = self.world.stripe.books.subscriptions[arguments["subscription_id"]]
        change = self._change(arguments["operation_id"])
        if subscription.is_terminal or change is None:
            return  # dunning ends one without credit
        self.world.count("ended_now_with_credit" if arguments["credit"] else "ended_now")
        name = f"{subscription.id} is ended before its time"
        if self.world.settings.stop != "now_with_credit":
            self.world.violate("M13", f"{name}, though the operator lets periods run out")
        theirs = self._of(subscription.customer.metadata["purser_pubkey"])
        periods = [i for i in theirs if i.subscription is subscription and i.reason in PERIODS]
        if arguments["credit"] and (not periods or periods[-1].status != "paid"):
            self.world.violate("M10", f"{name} with credit for a period that nobody paid")

    # --- before a renewal -------------------------------------------------------------------------

    def on_heads_up(self, tenant: str, kind: str, facts: Mapping[str, Any]) -> None:
        """Whoever is warned about a wallet is told what that wallet said."""
        self.world.count(kind)
        if kind == "renewal_notice":
            return
        wallets = [w for w in self.world.wallets.values() if w.tenant == tenant]
        told = {msat for wallet in wallets for msat in wallet.told_msat}
        for problem, had in (("balance", "have_msat"), ("budget", "left_msat")):
            if problem not in facts["problems"]:
                continue
            self.world.count(f"preflight_{problem}")
            if facts[had] not in told or facts[had] >= facts["amount_msat"]:
                self.world.violate("preflight", f"{tenant[:4]} is warned of {problem}: {facts}")
        if "silent" in facts["problems"]:
            self.world.count("preflight_silent")
            if not any(w.silent_asks >= SILENT_TRIES or w.revoked for w in wallets):
                self.world.violate("preflight", f"{tenant[:4]} is told of silence: {facts}")
        if {"cannot_pay", "wrong_network"} & {*facts["problems"]}:
            self.world.violate("preflight", f"{tenant[:4]} is warned of what is not so: {facts}")
