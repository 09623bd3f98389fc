"""M6: what wallets say by themselves reaches billing through the sessions of the running bot.

Notifications and late replies only hasten: what is paid is decided by look-ups, which come anyway.
"""

from __future__ import annotations

import json
from dataclasses import replace

from billing.model import ConnectionRole, ConnectionState, RequestState
from billing.refunds import RefundState
from billing.spending import SpenderBook
from billing.store import tenants
from billing.store.vault import Key, KeyRing, Vault
from tests.fakes.scripted_transport import ScriptedSubscription, ScriptedTransport
from tests.unit.billing.test_c18_refunds import paid_by_wallet, refund_of
from tests.unit.billing.test_configured_payee import configured
from tests.unit.billing.test_forged_replies import BOB, REFUSED, URI, listening
from tests.unit.billing.test_wallet_changes import order
from tests.world import World
from wallet.nwc_uri import NwcUri, parse
from wallet.ports import Reply, ReplySink

OLD, NEW, PAYER, IDLE, SPENDER = (f"{n:064x}" for n in range(2, 7))
"""Secrets of connections, by which the test tells who is listened to."""


class Relay(ScriptedTransport):
    """Knows who subscribed to what."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners: dict[str, ReplySink] = {}

    def subscribe(self, uri: NwcUri, sink: ReplySink) -> ScriptedSubscription:
        self.listeners[uri.secret] = sink
        return super().subscribe(uri, sink)


def uri(secret: str) -> str:
    return URI.replace("0d" * 32, secret)


async def wallet_of(world: World, tenant: str, secret: str) -> None:
    """The tenant's wallet, probed, with a URI that opens."""
    async with world.rt.unit() as unit:
        await world.desk.ensure_tenant(unit, await world.command("wallet", tenant, unit.tx))
        new = world.book.new(parse(uri(secret)), ConnectionRole.PAYER, tenant, now=unit.now)
        await tenants.insert_connection(
            unit.tx, replace(new, state=ConnectionState.ACTIVE, encryption="nip44_v2")
        )


async def spending_wallet(world: World) -> None:
    """In place of the one whose URI does not open."""
    vault = Vault(KeyRing((Key("k1", bytes(32)),)), world.ids)
    async with world.rt.unit() as unit:
        await unit.tx.execute("refunds.end_spender", now=unit.now)
    await SpenderBook(world.rt, vault, allow_private=True).configure(uri(SPENDER))


async def test_m6_money_that_our_wallet_tells_of_is_looked_for_at_once(world: World) -> None:
    """Unheard, whoever pays by hand waits for the schedule, which grows slow."""
    await configured(world)
    await order(world)
    await world.pass_time(600, step=60)
    (request,) = await world.requests()
    assert request.next_lookup_at is not None
    assert request.next_lookup_at > world.clock.now()
    transport = ScriptedTransport()
    wallets = listening(world, transport)
    await wallets.listen()
    told = {"type": "incoming", "state": "settled", "payment_hash": request.payment_hash}
    transport.say(None, {"notification_type": "payment_received", "notification": told})
    await wallets.close()
    (request,) = await world.requests()
    assert (request.state, request.next_lookup_at) == (RequestState.OPEN, world.clock.now())


async def test_m6_a_start_listens_to_whoever_may_still_speak_and_records_it(world: World) -> None:
    """Unheard, the refusal of a former life holds its invoice up until the request is dead."""
    await configured(world, uri(OLD))
    refunded = await paid_by_wallet(world)
    await spending_wallet(world)
    world.refund_wallets.behaviour = "never"
    await world.refund_desk.refund(refunded, None, None, "asked for it")
    await world.settle_down()
    assert (await refund_of(world, refunded)).state is RefundState.IN_FLIGHT
    world.payer.behaviour = "silent"
    await wallet_of(world, BOB, PAYER)
    await world.orders.new(await world.command("new", BOB), "bob", "basic")
    await wallet_of(world, "ca" * 32, IDLE)
    await world.settle_down()
    await world.book.configure_payee(uri(NEW))
    relay = Relay()
    wallets = listening(world, relay)
    await wallets.listen()
    assert set(relay.listeners) == {OLD, NEW, PAYER, SPENDER}
    event_id = world.payer.sent[-1]
    relay.listeners[PAYER](Reply("f1" * 32, event_id, json.dumps(REFUSED), 0))
    await wallets.close()
    (invoice,) = await world.invoices(BOB)
    (attempt,) = await world.attempts(invoice.id)
    assert (attempt.state, attempt.outcome) == ("refused", "INSUFFICIENT_BALANCE")
