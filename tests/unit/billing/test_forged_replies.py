"""M3, M5: a wallet answers for what it was asked to pay and nothing else: event ids are public."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from billing.model import Connection, ConnectionRole
from billing.refunds import Refund, RefundState
from billing.spending import SpenderBook
from billing.store import tenants
from billing.store.vault import Key, KeyRing, Vault
from bot.wallets import Wallets
from tests.fakes.scripted_transport import ScriptedTransport
from tests.unit.billing.test_c18_refunds import paid_by_wallet, refund_of
from tests.world import ALICE, World
from wallet.nwc_uri import parse

BOB = "b0" * 32
URI = (
    "nostr+walletconnect://79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    f"?relay=wss://relay.example&secret={'0d' * 32}"
)
REFUSED = {
    "result_type": "pay_invoice",
    "error": {"code": "INSUFFICIENT_BALANCE", "message": "no"},
    "result": None,
}


def listening(world: World, transport: Any) -> Wallets:
    """The sessions of the bot, as it makes them."""
    vault = Vault(KeyRing((Key("k1", bytes(32)),)), world.ids)
    return Wallets(
        rt=world.rt,
        book=world.book,
        spender_book=SpenderBook(world.rt, vault, allow_private=True),
        witness=world.witness,
        clock=world.clock,
        payee_transport=transport,
        payer_transport=transport,
        network="bcrt",
        pinned_payee=None,
    )


async def connection_of(world: World, tenant: str, name: str | None = None) -> Connection:
    """Its wallet, with a URI that opens. `name`: of a connection that is there already."""
    new = world.book.new(parse(URI), ConnectionRole.PAYER, tenant, now=world.clock.now())
    async with world.rt.unit() as unit:
        if name is None:
            await tenants.insert_connection(unit.tx, new)
            return new
        found = await tenants.connection(unit.tx, name)
    assert found is not None
    return replace(found, sealed_uri=new.sealed_uri)


async def says(world: World, connection: Connection, request_id: str, body: object) -> None:
    """That connection's wallet publishes an answer to this event."""
    transport = ScriptedTransport()
    wallets = listening(world, transport)
    await wallets._session(connection).listen()
    transport.say(request_id, body)
    await wallets.close()


async def in_flight(world: World) -> tuple[str, str]:
    """The invoice and the event of a payment that Alice's wallet is working on."""
    await world.connect_wallet()
    world.payer.behaviour = "silent"
    await world.orders.new(await world.command("new"), "alice", "basic")
    await world.settle_down()
    (invoice,) = await world.invoices()
    return invoice.id, world.payer.sent[0]


async def test_m5_the_wallet_of_another_tenant_refuses_nothing(world: World) -> None:
    """Believed, it would free the card while Alice's wallet pays."""
    invoice_id, event_id = await in_flight(world)
    async with world.rt.unit() as unit:
        await world.desk.ensure_tenant(unit, await world.command("wallet", BOB, unit.tx))
    await says(world, await connection_of(world, BOB), event_id, REFUSED)
    (attempt,) = await world.attempts(invoice_id)
    assert (attempt.state, attempt.outcome) == ("in_flight", None)


async def test_m5_the_wallet_that_was_asked_is_believed(world: World) -> None:
    invoice_id, event_id = await in_flight(world)
    await says(world, await connection_of(world, ALICE, "conn_a1a1a1"), event_id, REFUSED)
    (attempt,) = await world.attempts(invoice_id)
    assert attempt.state == "refused"


@pytest.mark.parametrize("body", [REFUSED, {"error": {"code": "UNAUTHORIZED", "message": ""}}])
async def test_c18_the_tenants_wallet_does_not_answer_for_our_spending_one(
    world: World, body: object
) -> None:
    """Believed, the operator would order the refund again and the tenant had it twice."""
    invoice_id = await paid_by_wallet(world)
    world.refund_wallets.behaviour = "never"
    await world.refund_desk.refund(invoice_id, None, None, "asked for it")
    await world.settle_down()
    refund: Refund = await refund_of(world, invoice_id)
    assert refund.state is RefundState.IN_FLIGHT
    assert refund.event_id is not None
    theirs = await connection_of(world, ALICE, "conn_a1a1a1")
    await says(world, theirs, refund.event_id, body)
    assert (await refund_of(world, invoice_id)).state is RefundState.IN_FLIGHT
