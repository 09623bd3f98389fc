"""A backup is put back after a payment went out that it does not know."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.sandbox.lightning.faults import Delay
from tests.e2e.botprocess import (
    Scene,
    Tenant,
    check_books,
    check_tenant_wallet,
    eventually,
    scene_in,
)
from tests.e2e.test_cli_beside_the_bot import purser

ABOUT_MONEY = ("lookup_invoice", "list_transactions")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Its log is not checked: where our wallet is silent for long, the rebuild says so as a worker
    that failed."""
    async with scene_in(tmp_path) as made:
        yield made


async def paid_after_the_backup(scene: Scene, tenant: Tenant, copy: Path) -> None:
    """The renewal's pay request goes out after the copy was made, and is paid while the bot is
    away."""
    assert (await purser(scene, "backup", str(copy))).code == 0
    scene.town.network.stall_next()
    await scene.advance()
    asked = tenant.connection.requests
    await eventually(lambda: asked.count("pay_invoice") == 2, "the wallet was asked")
    await scene.bot.terminate()
    scene.town.network.release_stalled()
    assert len(scene.invoices("open")) == 1


def put_back(scene: Scene, copy: Path) -> None:
    """As an operator does: the copy in the place of the database."""
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{scene.database}{ending}").unlink()
    copy.replace(scene.database)


async def deliver_again(scene: Scene, invoice_id: str) -> None:
    """Stripe sends again what it said of this invoice; the bot has it on the disk afterwards."""
    events = scene.town.stripe.world.table("event").values()
    about = [e["id"] for e in events if e["data"]["object"]["id"] == invoice_id]
    assert about
    for event_id in about:
        scene.town.stripe.delivery.resend(event_id)
    known = "SELECT event_id FROM inbox_events"
    await eventually(
        lambda: set(about) <= {row[0] for row in scene.rows(known)}, "the bot has the events"
    )


async def test_m1_m3_a_payment_that_the_backup_does_not_know_is_not_made_again(
    scene: Scene, tmp_path: Path
) -> None:
    """The copy knows the open invoice and the tenant's wallet and nothing of the payment: a bot
    that collects before our wallet can say what became of it has the invoice paid twice."""
    await scene.start()
    tenant = await scene.tenant()
    await tenant.ask("new alice basic", "Ordered")
    await tenant.hear("alice is up")
    await eventually(scene.all_money_placed, "the first is booked")
    copy = tmp_path / "copy.sqlite"
    await paid_after_the_backup(scene, tenant, copy)
    put_back(scene, copy)

    payee = scene.town.payee
    already = len(payee.requests)
    for method in ABOUT_MONEY:
        payee.misbehave(method, Delay(), times=None)
    scene.spawn()
    await scene.bot.logged("http.listening")
    (invoice,) = scene.invoices("open")
    await deliver_again(scene, invoice["id"])
    await tenant.client.say("pay")
    await scene.bot.logged("command", verb="pay")
    await eventually(lambda: "lookup_invoice" in payee.requests[already:], "our wallet is asked")
    await tenant.ask("status", "Relays: 1 up")
    assert tenant.connection.requests.count("pay_invoice") == 2
    assert len(scene.invoices("open")) == 1

    payee.behave()
    payee.release()
    await scene.ready()
    await tenant.hear("Paid")
    await eventually(scene.all_money_placed, "the renewal is booked")
    assert (await purser(scene, "audit", "--json")).json["agrees"] is True
    await scene.bot.terminate()
    assert tenant.connection.requests.count("pay_invoice") == 2
    assert len(scene.town.network.payments) == len(scene.invoices("paid")) == 2
    check_tenant_wallet(tenant)
    check_books(scene)
