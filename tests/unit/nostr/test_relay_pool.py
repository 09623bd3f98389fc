"""Sharing, idling, capping and trusting relay connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bot.nostr.answers import Answered, NotWritten
from bot.nostr.egress import Egress
from bot.nostr.events import Event, sign_event
from bot.nostr.filters import Filter
from bot.nostr.keys import Keys
from bot.nostr.pool import Lease, NoLease, PoolLimits, RelayPool
from bot.nostr.relay_policy import Reconnect
from tests.fakes.clock import FakeClock
from tests.fakes.scripted_relay import ScriptedRelay, until
from tests.fakes.seeded_ids import SeededIds

ME = Keys(b"\x21" * 32)


def note(text: str) -> Event:
    return sign_event(ME, 1, text, [], 1_800_000_000)


def make_pool(
    limits: PoolLimits | None = None, *, allow_private: bool = True, keys: Keys | None = None
) -> RelayPool:
    return RelayPool(
        Egress(allow_private=allow_private),
        FakeClock(),
        SeededIds(),
        keys=keys,
        limits=limits or PoolLimits(open_s=2.0, fetch_s=2.0),
        reconnect=Reconnect(first_s=0.01, max_s=0.05),
    )


@pytest.fixture
async def pool() -> AsyncIterator[RelayPool]:
    pool = make_pool()
    yield pool
    await pool.close()


@pytest.fixture
async def relay() -> AsyncIterator[ScriptedRelay]:
    async with ScriptedRelay() as relay:
        yield relay


def leased(answer: Lease | NoLease) -> Lease:
    assert isinstance(answer, Lease), answer
    return answer


async def test_publishes_to_many_and_tells_each_answer(
    pool: RelayPool, relay: ScriptedRelay
) -> None:
    async with ScriptedRelay() as strict, ScriptedRelay() as gone:
        strict.accepts, strict.says = False, "blocked: kind"
        await gone.stop()
        answers = await pool.publish_many([relay.url, strict.url, gone.url, "nonsense"], note("a"))
    assert answers[relay.url] == Answered(True, "")
    assert answers[strict.url] == Answered(False, "blocked: kind")
    assert answers[gone.url] == NotWritten("no address of it takes a TCP connection")
    assert answers["nonsense"].accepted is None
    assert list(answers) == [relay.url, strict.url, gone.url, "nonsense"]


async def test_one_connection_for_each_relay_however_spelled(
    pool: RelayPool, relay: ScriptedRelay
) -> None:
    same = f"WS://127.0.0.1:{relay.port}/"
    await asyncio.gather(
        *(pool.publish_many([relay.url, same], note(str(number))) for number in range(5))
    )
    assert (relay.connections, len(pool)) == (1, 1)
    first, second = leased(pool.acquire(relay.url)), leased(pool.acquire(same))
    assert first.connection is second.connection


async def test_idle_connections_close_and_used_ones_stay(relay: ScriptedRelay) -> None:
    pool = make_pool(PoolLimits(idle_s=0.03))
    kept = leased(pool.acquire(relay.url))
    assert await kept.connection.opened(2)
    await pool.publish_many([relay.url], note("a"))
    await asyncio.sleep(0.06)
    assert len(relay.clients) == 1
    kept.release()
    kept.release()
    again = leased(pool.acquire(relay.url))  # within the idle time: the same connection
    assert again.connection is kept.connection
    await asyncio.sleep(0.06)
    assert len(relay.clients) == 1
    again.release()
    await until(lambda: relay.clients == [] and len(pool) == 0)
    assert await pool.publish_many([relay.url], note("b")) == {relay.url: Answered(True, "")}
    await pool.close()


async def test_the_cap_evicts_the_longest_idle_and_refuses_when_all_are_used() -> None:
    pool = make_pool(PoolLimits(max_connections=2))
    first = leased(pool.acquire("ws://127.0.0.1:1"))
    second = leased(pool.acquire("ws://127.0.0.1:2"))
    assert pool.acquire("ws://127.0.0.1:3") == NoLease("too many relay connections")
    # What the operator configured is not locked out by strangers.
    leased(pool.acquire("ws://127.0.0.1:4", trusted=True)).release()
    second.release()
    await asyncio.sleep(0.01)
    first.release()
    third = leased(pool.acquire("ws://127.0.0.1:3"))
    assert len(pool) == 3
    assert leased(pool.acquire("ws://127.0.0.1:1")).connection is first.connection
    assert third.connection is not second.connection
    await pool.close()


async def test_strangers_do_not_share_the_operators_way_to_a_private_relay(
    relay: ScriptedRelay,
) -> None:
    pool = make_pool(allow_private=False)
    ours = leased(pool.acquire(relay.url, trusted=True))
    assert await ours.connection.opened(2)
    assert pool.acquire(relay.url) == NoLease("only wss:// is allowed")
    answers = await pool.publish_many([relay.url], note("a"))
    assert isinstance(answers[relay.url], NotWritten)
    secure = relay.url.replace("ws://", "wss://")
    answers = await pool.publish_many([secure], note("a"))
    assert answers[secure] == NotWritten("the name leads to an address that is not public")
    assert relay.verbs() == []
    await pool.close()


async def test_authenticates_only_where_a_user_allowed_it(relay: ScriptedRelay) -> None:
    pool = make_pool(keys=ME)
    relay.auth = "challenge first"
    answers = await pool.publish_many([relay.url], note("a"))
    assert answers[relay.url].accepted is False
    assert "AUTH" not in relay.verbs()
    answers = await pool.publish_many([relay.url], note("b"), auth=True)
    assert answers[relay.url] == Answered(True, "")
    # On a socket of its own: who is asked under no name there must not be told by another.
    assert {client.authenticated for client in relay.clients} == {None, ME.pubkey}
    await pool.close()


async def test_fetches_from_many(pool: RelayPool, relay: ScriptedRelay) -> None:
    relay.stored.append(note("a"))
    async with ScriptedRelay() as empty, ScriptedRelay() as gone:
        await gone.stop()
        answers = await pool.fetch_many([relay.url, empty.url, gone.url], Filter(kinds=(1,)))
        assert [event.content for event in answers[relay.url].events] == ["a"]
        assert (answers[empty.url].events, answers[empty.url].complete) == ((), True)
        assert not answers[gone.url].complete


async def test_a_closed_pool_gives_nothing_more(relay: ScriptedRelay) -> None:
    pool = make_pool()
    lease = leased(pool.acquire(relay.url))
    assert await lease.connection.opened(2)
    await pool.close()
    lease.release()
    assert relay.clients == []
    assert pool.acquire(relay.url) == NoLease("shutting down")
    assert isinstance(await lease.connection.publish(note("a")), NotWritten)


async def test_more_queries_than_a_relay_takes_on_one_socket_get_another(
    relay: ScriptedRelay,
) -> None:
    pool = make_pool(PoolLimits(queries_each=2, idle_s=0.02))
    leases: list[Lease] = []
    queries = []
    for _ in range(5):
        lease = leased(pool.acquire(relay.url, listen=True))
        queries.append(lease.connection.query(lambda: (Filter(kinds=(1,)),), lambda event: None))
        leases.append(lease)
    await until(lambda: all(query.eose for query in queries))
    assert sorted(len(client.queries) for client in relay.clients) == [1, 2, 2]
    plain = leased(pool.acquire(relay.url))
    assert plain.connection is leases[0].connection
    plain.release()
    for query, lease in zip(queries[:3], leases[:3], strict=True):
        query.close()
        lease.release()
    await until(lambda: len(pool) == 2)  # the first is idle and gone, its place is free again
    again = leased(pool.acquire(relay.url, listen=True))
    assert again.connection not in [lease.connection for lease in leases]
    await pool.close()
