"""Old secrets are sealed again with the first key, in small batches, on both engines (K12)."""

from __future__ import annotations

from billing.model import Connection, ConnectionRole, ConnectionState
from billing.reseal import BATCH, Resealer
from billing.store import refunds, tenants
from billing.store.engine import MigratableEngine
from billing.store.vault import Key, KeyRing, Place, Vault
from tests.world import ALICE, OPERATOR, World

OLD, NEW, LOST = Key("aa", b"\x01" * 32), Key("bb", b"\x02" * 32), Key("cc", b"\x03" * 32)
URI = "nostr+walletconnect://" + "ab" * 32 + "?relay=wss://r.example&secret=" + "cd" * 32


async def sealed_world(engine: MigratableEngine, count: int) -> tuple[World, Vault]:
    """A database whose secrets were all sealed with the old key."""
    world = World(engine)
    assert await world.lease.take()
    old = Vault(KeyRing((OLD,)), world.ids)
    async with world.rt.unit() as unit:
        await unit.tx.execute(
            "tenants.insert", pubkey=ALICE, name="alice", legacy_dm=0, created_at=1
        )
        for number in range(count):
            await tenants.insert_connection(unit.tx, connection(world, old, number))
        await unit.tx.execute(
            "refunds.insert_spender",
            id="conn_spender",
            sealed_uri=old.seal(URI, Place("spending_connections", None, "sealed_uri")),
            wallet_pubkey="ab" * 32,
            masked="nwc",
            created_at=1,
        )
        await unit.say("hello", ALICE, "help")
        await unit.tx.execute(
            "outbox.keep_rumor",
            key="hello",
            sealed_rumor=old.seal("rumor", Place("outbox_messages", ALICE, "sealed_rumor")),
        )
    return world, Vault(KeyRing((NEW, OLD)), world.ids)


def connection(world: World, vault: Vault, number: int) -> Connection:
    return Connection(
        id=f"conn_{number:04d}",
        role=ConnectionRole.PAYER,
        tenant=ALICE,
        sealed_uri=vault.seal(URI, Place("connections", ALICE, "sealed_uri")),
        wallet_pubkey="ab" * 32,
        masked="nwc",
        encryption=None,
        state=ConnectionState.REPLACED,
        methods=None,
        probed_at=None,
        probe_due_at=None,
        problem=None,
        created_at=1,
        ended_at=None,
    )


async def alarm(world: World) -> str:
    """The only one there is."""
    ((_, facts),) = await world.messages(OPERATOR)
    return str(facts["what"])


async def test_k12_every_secret_ends_up_under_the_first_key(engine: MigratableEngine) -> None:
    world, ring = await sealed_world(engine, BATCH + 3)
    resealer = Resealer(world.rt, ring)
    rounds = 0
    while not resealer.done:
        assert await resealer.run_once(world.clock.now()) <= BATCH
        rounds += 1
    assert rounds == 4  # two of connections, one of each other table
    assert (resealer.resealed, resealer.stuck) == (BATCH + 5, 0)
    alone = Vault(KeyRing((NEW,)), world.ids)
    async with world.rt.unit() as unit:
        for row in await unit.tx.fetch_all(Connection, "connections.everything"):
            assert alone.open(row.sealed_uri, Place("connections", ALICE, "sealed_uri")) == URI
        spender = await refunds.spender(unit.tx)
    assert spender is not None
    assert alone.open(spender.sealed_uri, Place("spending_connections", None, "sealed_uri")) == URI
    assert f"{BATCH + 5} secrets" in (await alarm(world))
    # The next life finds nothing, and says nothing.
    again = Resealer(world.rt, ring)
    while not again.done:
        assert await again.run_once(world.clock.now()) == 0
    assert await alarm(world)


async def test_k12_what_no_key_opens_stays_and_is_told(engine: MigratableEngine) -> None:
    world, _ = await sealed_world(engine, 2)
    resealer = Resealer(world.rt, Vault(KeyRing((NEW, LOST)), world.ids))
    while not resealer.done:
        await resealer.run_once(world.clock.now())
    assert (resealer.resealed, resealer.stuck) == (0, 4)
    old = Vault(KeyRing((OLD,)), world.ids)
    async with world.rt.unit() as unit:
        for row in await unit.tx.fetch_all(Connection, "connections.everything"):
            assert old.open(row.sealed_uri, Place("connections", ALICE, "sealed_uri")) == URI
    assert "4 do not open" in await alarm(world)
