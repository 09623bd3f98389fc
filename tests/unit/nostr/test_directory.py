"""Inbox relays of others: found, absent or not known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from bot.nostr.directory import Absent, Directory, Found, LookupFailed, Source
from bot.nostr.events import Event, sign_event
from bot.nostr.filters import Filter, any_matches
from bot.nostr.keys import Keys
from bot.nostr.relay import Fetched
from tests.fakes.clock import FakeClock

HER = Keys(b"\x31" * 32)
SHE = HER.pubkey
OTHER = Keys(b"\x32" * 32)
INDEXERS = ["wss://index.one", "wss://index.two", "wss://index.three"]
NOW = 1_800_000_000


def dm_list(*urls: str, at: int = NOW, keys: Keys = HER) -> Event:
    return sign_event(keys, 10050, "", [("relay", url) for url in urls], at)


def relay_list(*tags: tuple[str, ...], at: int = NOW) -> Event:
    return sign_event(HER, 10002, "", [("r", *tag) for tag in tags], at)


class Relays:
    """What each relay holds; None: it does not answer."""

    def __init__(self) -> None:
        self.held: dict[str, list[Event] | None] = {url: [] for url in INDEXERS}
        self.asked: list[tuple[str, bool]] = []

    async def fetch_many(
        self, urls: Iterable[str], *filters: Filter, trusted: bool = False
    ) -> dict[str, Fetched]:
        answers = {}
        for url in urls:
            self.asked.append((url, trusted))
            await asyncio.sleep(0)
            held = self.held.get(url)
            if held is None:
                answers[url] = Fetched((), False, "no open socket")
            else:
                answers[url] = Fetched(tuple(e for e in held if any_matches(filters, e)), True)
        return answers

    def hold(self, index: int, *events: Event) -> None:
        self.held[INDEXERS[index]] = list(events)

    def silence(self, *indexes: int) -> None:
        for index in indexes:
            self.held[INDEXERS[index]] = None


@pytest.fixture
def relays() -> Relays:
    return Relays()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def directory(relays: Relays, clock: FakeClock) -> Directory:
    return Directory(relays, clock, INDEXERS)


async def test_the_newest_list_of_all_relays_wins(relays: Relays, directory: Directory) -> None:
    relays.hold(0, dm_list("wss://old", at=NOW - 100))
    relays.hold(1, dm_list("wss://new", "wss://two", at=NOW - 1))
    relays.hold(2, dm_list("wss://older", at=NOW - 200))
    assert await directory.inbox(SHE) == Found(("wss://new", "wss://two"), Source.DM_RELAYS)


async def test_a_list_from_the_future_or_of_somebody_else_is_ignored(
    relays: Relays, directory: Directory
) -> None:
    relays.hold(0, dm_list("wss://future", at=NOW + 100_000), dm_list("wss://x", keys=OTHER))
    relays.hold(1, dm_list("wss://true"))
    assert await directory.inbox(SHE) == Found(("wss://true",), Source.DM_RELAYS)


async def test_without_dm_relays_her_read_relays_are_used(
    relays: Relays, directory: Directory
) -> None:
    relays.hold(0, relay_list(("wss://read", "read"), ("wss://write", "write"), ("wss://both",)))
    relays.held |= {"wss://write": [], "wss://both": []}
    assert await directory.inbox(SHE) == Found(("wss://read", "wss://both"), Source.RELAY_LIST)
    # Her own relays were asked for kind 10050 first, as strangers' relays.
    assert relays.asked[3:] == [("wss://write", False), ("wss://both", False)]


async def test_dm_relays_are_found_on_her_own_relays(relays: Relays, directory: Directory) -> None:
    relays.hold(0, relay_list(("wss://own",)))
    relays.held["wss://own"] = [dm_list("wss://inbox")]
    assert await directory.inbox(SHE) == Found(("wss://inbox",), Source.DM_RELAYS)


async def test_a_hint_is_asked_as_a_strangers_relay(relays: Relays, directory: Directory) -> None:
    relays.held["wss://hint"] = [dm_list("wss://inbox")]
    directory.hint(SHE, ["wss://hint"])
    assert await directory.inbox(SHE) == Found(("wss://inbox",), Source.DM_RELAYS)
    assert ("wss://hint", False) in relays.asked
    assert (INDEXERS[0], True) in relays.asked


async def test_absent_and_failed_are_told_apart(relays: Relays, directory: Directory) -> None:
    relays.silence(0, 1)
    assert await directory.inbox(SHE) == LookupFailed("1 of 3 indexer relays answered")
    relays.hold(1)
    assert await directory.inbox(SHE) == Absent()


async def test_an_empty_list_is_no_list(relays: Relays, directory: Directory) -> None:
    relays.hold(0, dm_list("not a url", at=NOW), relay_list(("wss://read",)))
    relays.held["wss://read"] = []
    assert await directory.inbox(SHE) == Found(("wss://read",), Source.RELAY_LIST)


async def test_answers_are_remembered_for_their_time(
    relays: Relays, directory: Directory, clock: FakeClock
) -> None:
    assert await directory.inbox(SHE) == Absent()
    relays.hold(0, dm_list("wss://inbox"))
    assert await directory.inbox(SHE) == Absent()
    clock.advance(601)
    found = await directory.inbox(SHE)
    assert isinstance(found, Found)
    asked = len(relays.asked)
    clock.advance(6 * 3600 - 1)
    assert await directory.inbox(SHE) == found
    assert len(relays.asked) == asked
    directory.forget(SHE)
    await directory.inbox(SHE)
    assert len(relays.asked) > asked


async def test_failures_are_not_remembered_and_fall_back_to_what_was_found(
    relays: Relays, directory: Directory, clock: FakeClock
) -> None:
    relays.hold(0, dm_list("wss://inbox"))
    found = await directory.inbox(SHE)
    relays.silence(0, 1, 2)
    clock.advance(7 * 3600)
    assert await directory.inbox(SHE) == found
    clock.advance(7 * 86_400)
    assert isinstance(await directory.inbox(SHE), LookupFailed)
    relays.hold(0)
    relays.hold(1)
    assert await directory.inbox(SHE) == Absent()


async def test_look_ups_at_the_same_time_share_one(relays: Relays, directory: Directory) -> None:
    first = asyncio.create_task(directory.inbox(SHE))
    others = [asyncio.create_task(directory.inbox(SHE)) for _ in range(4)]
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.gather(*others) == [Absent()] * 4
    assert len(relays.asked) == len(INDEXERS)
