"""One relay connection against a relay that a test scripts."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bot.nostr.answers import Answered, NotWritten, Unanswered
from bot.nostr.egress import Egress
from bot.nostr.events import Event, sign_event
from bot.nostr.filters import Filter
from bot.nostr.keys import Keys
from bot.nostr.messages import MAX_MESSAGE_BYTES
from bot.nostr.query import EventQueue, Query
from bot.nostr.relay import RelayConnection
from bot.nostr.relay_policy import Reconnect, RelayLimits
from tests.fakes.clock import FakeClock
from tests.fakes.scripted_relay import Client, ScriptedRelay, until
from tests.fakes.seeded_ids import SeededIds

ME = Keys(b"\x21" * 32)
OTHER = Keys(b"\x22" * 32)
QUICK = Reconnect(first_s=0.01, max_s=0.05)
LIMITS = RelayLimits(
    ok_s=0.3, auth_s=0.3, lone_req_s=0.05, closed_retry_s=0.03, send_s=0.5, close_s=0.5
)


def note(text: str, keys: Keys = OTHER, kind: int = 1, at: int = 1_800_000_000) -> Event:
    return sign_event(keys, kind, text, [("p", ME.pubkey)], at)


@pytest.fixture
async def relay() -> AsyncIterator[ScriptedRelay]:
    async with ScriptedRelay() as relay:
        yield relay


def connect(relay: ScriptedRelay, auth: Keys | None = None, **options: Any) -> RelayConnection:
    options.setdefault("limits", LIMITS)
    connection = RelayConnection(
        relay.url,
        egress=Egress(allow_private=True),
        clock=FakeClock(),
        ids=SeededIds(),
        auth=auth,
        reconnect=QUICK,
        **options,
    )
    connection.start()
    return connection


@pytest.fixture
async def connection(relay: ScriptedRelay) -> AsyncIterator[RelayConnection]:
    connection = connect(relay)
    assert await connection.opened(2)
    yield connection
    await connection.close()


class Heard:
    """Events of one query."""

    def __init__(self, connection: RelayConnection, *filters: Filter) -> None:
        self.events: list[Event] = []
        self.query: Query = connection.query(
            lambda: filters or (Filter(kinds=(1,)),), self.events.append
        )

    @property
    def texts(self) -> list[str]:
        return [event.content for event in self.events]


def never() -> bool:
    raise AssertionError("a permit was asked for a write that cannot happen")


# --- publishing ---------------------------------------------------------------------------------


async def test_tells_the_relays_ok(relay: ScriptedRelay, connection: RelayConnection) -> None:
    assert await connection.publish(note("a")) == Answered(True, "")
    relay.accepts, relay.says = False, "blocked: not you"
    assert await connection.publish(note("b")) == Answered(False, "blocked: not you")
    assert [event["content"] for event in relay.events()] == ["a", "b"]


async def test_silence_is_no_answer(relay: ScriptedRelay, connection: RelayConnection) -> None:
    relay.accepts = None
    assert isinstance(await connection.publish(note("a"), timeout_s=0.05), Unanswered)
    # A late OK belongs to nobody and disturbs nobody.
    await relay.clients[0].say("OK", note("a").id, True, "")
    relay.accepts = True
    assert await connection.publish(note("b")) == Answered(True, "")


async def test_nothing_is_queued_for_a_relay_that_is_away(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    await relay.stop()
    await until(lambda: not connection.is_open)
    assert isinstance(await connection.publish(note("a")), NotWritten)
    assert isinstance(
        await connection.write(note("b").id, note("b").to_json(), once=True), NotWritten
    )
    await relay.start()
    await until(lambda: connection.is_open)
    assert await connection.publish(note("c")) == Answered(True, "")
    assert [event["content"] for event in relay.events()] == ["c"]


async def test_a_socket_lost_after_the_write_is_no_answer(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    async def drop(client: Client, message: list[Any]) -> bool:
        if message[0] == "EVENT":
            client.socket.transport.abort()
        return bool(message[0] == "EVENT")

    relay.hook = drop
    outcome = await connection.write(note("a").id, note("a").to_json(), once=True)
    assert isinstance(outcome, Unanswered)
    await until(lambda: relay.connections == 2)
    await asyncio.sleep(0.02)
    assert len(relay.events()) == 1


async def test_permit_is_asked_at_the_write_and_refuses_it(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    asked: list[int] = []

    def permit() -> bool:
        asked.append(len(relay.events()))
        return False

    event = note("a")
    outcome = await connection.write(event.id, event.to_json(), once=True, permit=permit)
    assert outcome == NotWritten("no longer permitted")
    assert asked == [0]
    assert await connection.publish(note("b")) == Answered(True, "")
    assert [event["content"] for event in relay.events()] == ["b"]


async def test_a_permit_is_not_asked_when_there_is_no_socket(relay: ScriptedRelay) -> None:
    connection = connect(relay)
    try:
        event = note("a")

        outcome = await connection.write(event.id, event.to_json(), once=True, permit=never)
        assert isinstance(outcome, NotWritten)
    finally:
        await connection.close()


async def test_between_permit_and_write_nothing_else_runs(
    relay: ScriptedRelay, connection: RelayConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The permit checks clock and fencing token: no other task may run before the bytes leave."""
    order: list[str] = []
    session = connection._session
    assert session is not None
    transport = session._socket.transport
    original = transport.write

    def write(data: bytes) -> None:
        order.append("write")
        original(data)

    monkeypatch.setattr(session._socket, "transport", _Spy(transport, write))

    def permit() -> bool:
        order.append("permit")
        asyncio.get_running_loop().call_soon(order.append, "somebody else")
        return True

    event = note("a")
    assert await connection.write(event.id, event.to_json(), once=True, permit=permit) == Answered(
        True, ""
    )
    assert order[:3] == ["permit", "write", "somebody else"]


class _Spy:
    def __init__(self, transport: Any, write: Any) -> None:
        self._transport = transport
        self.write = write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def test_once_is_not_written_behind_data_that_has_not_left(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    blocked = asyncio.Event()

    async def stall(client: Client, message: list[Any]) -> bool:
        client.socket.transport.pause_reading()
        await blocked.wait()
        return True

    relay.hook = stall
    tasks = [
        asyncio.create_task(connection.publish(note("x" * 200_000 + str(n)))) for n in range(60)
    ]
    await asyncio.sleep(0.05)
    event = note("pay")
    outcome = await connection.write(event.id, event.to_json(), once=True, permit=never)
    assert outcome == NotWritten("earlier data has not left yet")
    blocked.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_relay_that_does_not_read_is_given_up(relay: ScriptedRelay) -> None:
    connection = connect(relay, limits=RelayLimits(send_s=0.1, close_s=0.2))
    assert await connection.opened(2)

    async def stall(client: Client, message: list[Any]) -> bool:
        client.socket.transport.pause_reading()
        await asyncio.sleep(1)
        return True

    relay.hook = stall
    outcomes = await asyncio.gather(
        *(connection.publish(note("x" * 200_000 + str(n)), timeout_s=2) for n in range(60))
    )
    assert {type(outcome) for outcome in outcomes} == {Unanswered}
    await connection.close()


# --- queries ------------------------------------------------------------------------------------


async def test_query_gets_stored_then_eose_then_live(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    relay.stored.append(note("stored"))
    heard = Heard(connection)
    await until(lambda: heard.query.eose)
    assert heard.query.ready
    assert heard.texts == ["stored"]
    await relay.spread(note("live"))
    await until(lambda: len(heard.events) == 2)
    assert heard.texts == ["stored", "live"]


async def test_duplicates_and_what_was_not_asked_for_are_dropped(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    heard = Heard(connection, Filter(kinds=(1,), authors=(OTHER.pubkey,)))
    await until(lambda: heard.query.eose)
    say = relay.clients[0].say
    for event in [note("a"), note("a"), note("b", kind=2), note("c", keys=ME), note("d")]:
        await say("EVENT", heard.query.id, event.to_dict())
    await say("EVENT", "another", note("e").to_dict())
    await say("EVENT", heard.query.id, note("f").to_dict())
    await until(lambda: "f" in heard.texts)
    assert heard.texts == ["a", "d", "f"]
    assert (heard.query.duplicates, heard.query.unmatched) == (1, 2)
    assert connection.counters.unasked == 1


async def test_forged_and_malformed_frames_are_counted_and_dropped(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    heard = Heard(connection)
    await until(lambda: heard.query.eose)
    client = relay.clients[0]
    forged = note("forged").to_dict() | {"content": "changed"}
    unsigned = note("unsigned").to_dict() | {"sig": "00" * 64}
    frames: list[str | bytes] = [
        json.dumps(["EVENT", heard.query.id, forged]),
        json.dumps(["EVENT", heard.query.id, unsigned]),
        "",
        "[]",
        "null",
        "[" * 100_000,
        '{"a":' * 5_000,
        '["EVENT"]',
        '["OK",1,2,3]',
        '["EVENT","x",{"content":"\\ud800"}]',
        b"\xff\xfe",
        '["OK",' + "9" * 5000 + "]",
    ]
    for frame in frames:
        await client.raw(frame)
    await client.say("EVENT", heard.query.id, note("good").to_dict())
    await until(lambda: heard.texts == ["good"])
    assert connection.counters.malformed == len(frames)
    assert relay.connections == 1


async def test_bytes_that_are_no_websocket_cost_the_relay_only_its_socket(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    heard = Heard(connection)
    await until(lambda: heard.query.eose)
    relay.clients[0].socket.transport.write(b"\xff\xff\xff\xff HTTP/1.1 nonsense")
    await until(lambda: relay.connections == 2 and heard.query.eose)
    await relay.clients[0].raw("x" * (MAX_MESSAGE_BYTES + 1))
    await until(lambda: relay.connections == 3 and heard.query.eose)
    await relay.spread(note("after"))
    await until(lambda: heard.texts == ["after"])


async def test_asks_again_after_a_loss_and_delivers_nothing_twice(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    relay.stored.append(note("one"))
    since = iter(range(100))
    texts: list[str] = []
    query = connection.query(
        lambda: (Filter(kinds=(1,), since=next(since)),), lambda event: texts.append(event.content)
    )
    await until(lambda: query.eose)
    await relay.drop_all()
    await until(lambda: not query.ready)
    relay.stored.append(note("two"))
    await until(lambda: query.eose)
    assert texts == ["one", "two"]
    requests = [message for message in relay.received if message[0] == "REQ"]
    assert [message[2]["since"] for message in requests] == [0, 1]


async def test_closing_a_query_tells_the_relay(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    heard = Heard(connection)
    await until(lambda: heard.query.eose)
    heard.query.close()
    await until(lambda: relay.verbs()[-1] == "CLOSE")
    await relay.clients[0].say("EVENT", heard.query.id, note("late").to_dict())
    await connection.publish(note("sync"))
    assert heard.events == []


async def test_a_query_that_the_relay_closed_is_asked_again_later(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    heard = Heard(connection)
    await until(lambda: heard.query.eose)
    await relay.clients[0].say("CLOSED", heard.query.id, "error: shutting down idle query")
    await until(lambda: heard.query.closed_reason is not None)
    assert not heard.query.ready
    await until(lambda: relay.verbs().count("REQ") == 2 and heard.query.ready)
    assert heard.query.closed_reason is None


async def test_without_eose_a_query_counts_as_live_after_a_while(relay: ScriptedRelay) -> None:
    async def mute(client: Client, message: list[Any]) -> bool:
        return bool(message[0] == "REQ")

    relay.hook = mute
    connection = connect(relay)
    heard = Heard(connection)
    await until(lambda: heard.query.ready)
    assert not heard.query.eose
    await connection.close()


async def test_a_receivers_bug_does_not_take_the_socket_from_others(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError("bug")

    connection.query(lambda: (Filter(kinds=(1,)),), fail)
    heard = Heard(connection)
    await until(lambda: heard.query.eose)
    await relay.spread(note("a"))
    await until(lambda: heard.texts == ["a"])
    assert relay.connections == 1
    assert connection.counters.failed_deliveries == 1


async def test_a_slow_reader_loses_the_oldest_and_is_told(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    dropped: list[str] = []

    def on_drop(event: Event) -> None:
        dropped.append(event.content)
        query.forget(event.id)

    queue = EventQueue(2, on_drop=on_drop)
    query = connection.query(lambda: (Filter(kinds=(1,)),), queue.put)
    await until(lambda: query.eose)
    for text in "abc":
        await relay.spread(note(text))
    await connection.publish(note("sync", kind=9))
    assert (len(queue), queue.dropped, dropped) == (2, 1, ["a"])
    queue.close()
    assert [event.content async for event in queue] == ["b", "c"]


async def test_fetch_returns_stored_events_and_says_if_they_are_all(
    relay: ScriptedRelay, connection: RelayConnection
) -> None:
    relay.stored += [note("a"), note("b")]
    answer = await connection.fetch(Filter(kinds=(1,)), timeout_s=2)
    assert sorted(event.content for event in answer.events) == ["a", "b"]
    assert answer.complete

    async def refuse(client: Client, message: list[Any]) -> bool:
        if message[0] == "REQ":
            await client.say("CLOSED", message[1], "blocked: no")
        return bool(message[0] == "REQ")

    relay.hook = refuse
    answer = await connection.fetch(Filter(kinds=(1,)), timeout_s=2)
    assert (answer.events, answer.complete, answer.reason) == ((), False, "blocked: no")

    async def cut(client: Client, message: list[Any]) -> bool:
        client.socket.transport.abort()
        return True

    relay.hook = cut
    answer = await connection.fetch(Filter(kinds=(1,)), timeout_s=2)
    assert (answer.complete, answer.reason) == (False, "lost")


# --- NIP-42 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal", ["auth-required: first", "restricted: members", "auth-required"]
)
@pytest.mark.parametrize("auth", ["challenge first", "challenge later"])
async def test_authenticates_where_it_is_allowed(
    relay: ScriptedRelay, auth: str, refusal: str
) -> None:
    relay.auth, relay.refusal = auth, refusal
    relay.stored.append(note("stored"))
    connection = connect(relay, auth=ME)
    heard = Heard(connection)
    assert await connection.opened(2)
    assert await connection.publish(note("mine")) == Answered(True, "")
    await until(lambda: heard.texts == ["stored", "mine"] or heard.texts == ["mine", "stored"])
    assert relay.clients[0].authenticated == ME.pubkey
    await connection.close()


@pytest.mark.parametrize("auth", ["challenge first", "challenge later"])
async def test_never_authenticates_where_it_is_not_allowed(relay: ScriptedRelay, auth: str) -> None:
    relay.auth = auth
    connection = connect(relay)
    heard = Heard(connection)
    assert await connection.opened(2)
    assert await connection.publish(note("a")) == Answered(False, relay.refusal)
    await until(lambda: heard.query.closed_reason == relay.refusal)
    assert "AUTH" not in relay.verbs()
    await connection.close()


async def test_once_means_once_also_when_authentication_is_asked_for(relay: ScriptedRelay) -> None:
    relay.auth = "challenge later"
    connection = connect(relay, auth=ME)
    assert await connection.opened(2)
    event = note("pay")
    outcome = await connection.write(event.id, event.to_json(), once=True)
    assert outcome == Answered(False, relay.refusal)
    await until(lambda: relay.clients[0].authenticated is not None)
    assert await connection.publish(note("other")) == Answered(True, "")
    assert [e["content"] for e in relay.events()] == ["pay", "other"]
    await connection.close()


async def test_once_is_not_written_again_after_silence_and_authentication(
    relay: ScriptedRelay,
) -> None:
    async def ignore(client: Client, message: list[Any]) -> bool:
        if message[0] == "EVENT" and client.authenticated is None:
            await client.say("AUTH", "challenge")
            return True
        return False

    relay.hook = ignore
    connection = connect(relay, auth=ME)
    assert await connection.opened(2)
    event = note("pay")
    outcome = await connection.write(event.id, event.to_json(), once=True, timeout_s=0.1)
    assert isinstance(outcome, Unanswered)
    assert relay.clients[0].authenticated == ME.pubkey
    assert relay.verbs() == ["EVENT", "AUTH"]
    await connection.close()


async def test_once_waits_for_an_authentication_that_is_under_way(relay: ScriptedRelay) -> None:
    later: list[asyncio.Task[None]] = []

    async def slowly(client: Client, message: list[Any]) -> bool:
        async def accept() -> None:
            await asyncio.sleep(0.03)
            client.authenticated = ME.pubkey
            await client.say("OK", message[1]["id"], True, "")

        if message[0] == "AUTH":
            later.append(asyncio.create_task(accept()))
        return bool(message[0] == "AUTH")

    relay.auth, relay.hook = "challenge first", slowly
    connection = connect(relay, auth=ME)
    await until(lambda: "AUTH" in relay.verbs())
    event = note("pay")
    assert await connection.write(event.id, event.to_json(), once=True) == Answered(True, "")
    assert relay.verbs().count("EVENT") == 1
    await connection.close()


async def test_queries_are_asked_again_after_authentication_without_being_told(
    relay: ScriptedRelay,
) -> None:
    """Some relays keep gift wraps back from strangers and say EOSE all the same."""

    async def keep_back(client: Client, message: list[Any]) -> bool:
        if message[0] == "REQ" and client.authenticated is None:
            await client.say("EOSE", message[1])
            await client.say("AUTH", "challenge")
            return True
        return False

    relay.hook = keep_back
    relay.stored.append(note("for members"))
    connection = connect(relay, auth=ME)
    heard = Heard(connection)
    await until(lambda: heard.texts == ["for members"])
    await connection.close()


async def test_an_authentication_without_an_answer_is_taken_for_accepted(
    relay: ScriptedRelay,
) -> None:
    async def wordless(client: Client, message: list[Any]) -> bool:
        if message[0] == "AUTH":
            client.authenticated = message[1]["pubkey"]
        return bool(message[0] == "AUTH")

    relay.auth, relay.hook = "challenge later", wordless
    connection = connect(relay, auth=ME)
    assert await connection.opened(2)
    assert await connection.publish(note("a"), timeout_s=2) == Answered(True, "")
    await connection.close()


async def test_a_refused_authentication_settles_what_waited_for_it(relay: ScriptedRelay) -> None:
    async def refuse(client: Client, message: list[Any]) -> bool:
        if message[0] == "AUTH":
            await client.say("OK", message[1]["id"], False, "restricted: not a member")
        return bool(message[0] == "AUTH")

    relay.auth, relay.hook = "challenge later", refuse
    connection = connect(relay, auth=ME)
    assert await connection.opened(2)
    assert await connection.publish(note("a"), timeout_s=2) == Answered(False, relay.refusal)
    answer = await connection.fetch(Filter(kinds=(1,)), timeout_s=2)
    assert (answer.complete, answer.reason) == (False, relay.refusal)
    await connection.close()


async def test_a_notice_instead_of_a_refusal_is_tolerated(relay: ScriptedRelay) -> None:
    async def misuse(client: Client, message: list[Any]) -> bool:
        if message[0] == "EVENT" and client.authenticated is None:
            await client.say("NOTICE", "restricted: auth-required, please authenticate")
            await client.say("AUTH", "challenge")
            return True
        return False

    relay.hook = misuse
    connection = connect(relay, auth=ME)
    assert await connection.opened(2)
    assert await connection.publish(note("a")) == Answered(True, "")
    assert connection.counters.notices == 1
    await connection.close()


async def test_a_relay_that_challenges_for_ever_is_answered_a_few_times(
    relay: ScriptedRelay,
) -> None:
    connection = connect(relay, auth=ME)
    assert await connection.opened(2)
    for number in range(50):
        await relay.clients[0].say("AUTH", f"challenge {number}")
    assert await connection.publish(note("a")) == Answered(True, "")  # all 50 were read before it
    await until(lambda: relay.verbs().count("AUTH") == LIMITS.max_auths)
    assert await connection.publish(note("b")) == Answered(True, "")
    assert relay.verbs().count("AUTH") == LIMITS.max_auths
    await connection.close()


# --- life ---------------------------------------------------------------------------------------


async def test_a_dead_relay_is_tried_with_growing_pauses_and_told_at_once() -> None:
    relay = await ScriptedRelay().start()
    await relay.stop()
    connection = connect(relay)
    assert not await connection.opened(2)
    assert connection.last_error == "no address of it takes a TCP connection"
    await relay.start()
    await until(lambda: connection.is_open)
    await connection.close()
    await relay.stop()


async def test_closing_is_quick_also_when_the_relay_is_not(relay: ScriptedRelay) -> None:
    async def stall(client: Client, message: list[Any]) -> bool:
        client.socket.transport.pause_reading()
        return True

    connection = connect(relay, limits=RelayLimits(close_s=0.1))
    assert await connection.opened(2)
    relay.hook = stall
    heard = Heard(connection)
    await until(lambda: "REQ" in relay.verbs())
    async with asyncio.timeout(0.8):
        await connection.close()
    assert heard.query.is_closed
    assert not connection.is_open


def test_back_off_grows_is_spread_and_ends() -> None:
    policy = Reconnect(first_s=1, factor=2, max_s=300)
    assert [policy.delay_s(n, 0.999_999_9) for n in (1, 2, 3)] == pytest.approx([1, 2, 4])
    assert policy.delay_s(1, 0) == 0.5
    assert policy.delay_s(10_000, 0.999_999_9) == pytest.approx(300)


@pytest.mark.parametrize("seed", range(4))
async def test_no_message_of_a_hostile_relay_ends_more_than_its_own_socket(
    relay: ScriptedRelay, seed: int
) -> None:
    connection = connect(relay, auth=ME)
    heard = Heard(connection)
    await until(lambda: heard.query.eose)
    chance = random.Random(seed)
    pieces: list[Any] = [
        None, True, False, 0, -1, 1e308, 10**30, "", "x" * 600, "auth-required: x", "\ud800", {},
        [], [[]], heard.query.id, note("a").id, note("a").to_dict(), {"id": 1, "kind": 1},
    ]  # fmt: skip
    verbs = ["EVENT", "OK", "EOSE", "CLOSED", "NOTICE", "AUTH", "COUNT", "NEG-MSG", "", None, 7]
    for _ in range(300):
        message = [chance.choice(verbs), *chance.choices(pieces, k=chance.randrange(5))]
        await relay.clients[0].raw(json.dumps(message))
    # Whatever was said about queries and events before, this one is answered in its own words.
    assert await connection.publish(note("after")) == Answered(True, "")
    await relay.spread(note("heard"))
    await until(lambda: "heard" in heard.texts)
    assert relay.connections == 1
    assert connection.counters.failed_deliveries == 0
    await connection.close()
