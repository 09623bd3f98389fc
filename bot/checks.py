"""Reaches everything a configuration names, and says of each whether it will do."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import httpx

from billing.errors import NoQuote, PurserError
from billing.rate_book import RateBook
from billing.rate_sources import build_rate_sources
from billing.store.migrate import NewerDatabase, pending
from billing.store.open import open_engine, sqlite_path
from bot.check_behaviour import check_behaviour
from bot.check_payee import check_payee
from bot.check_refunds import check_refunds
from bot.check_stripe import check_stripe
from bot.clock import SystemClock, SystemIds
from bot.config import Config
from bot.control import ControlFailed, find_running
from bot.logs import describe
from bot.nostr.egress import Egress
from bot.nostr.pool import Lease, RelayPool
from bot.relayhost import registry as relay_hosts
from bot.relayhost.http import new_client, nip98_authorize

RELAY_S: Final = 15.0
"""Connect and handshake of one relay."""
ONE_CHECK_S: Final = 60.0
"""No dependency needs longer to say something; a payee may be asked three times."""
WAL_FIXED: Final = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""The WAL-reset bug (SQLite 3.7.0 to 3.51.2) is fixed in these releases of their branches."""


class Verdict(StrEnum):
    """`warn` works, but costs something or will."""

    OK = "ok"
    WARN = "warn"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, the verdict, and what is so or what to do."""

    what: str
    verdict: Verdict
    text: str


@dataclass(slots=True)
class Bench:
    """What the checks use."""

    config: Config
    clock: SystemClock
    ids: SystemIds
    pool: RelayPool
    http: httpx.AsyncClient
    issue: bool


async def run_checks(
    config: Config, *, issue: bool = True, behaviour: bool = False
) -> list[Finding]:
    """All of them at once, told in a fixed order. `issue`: the payee issues a request over 1 sat
    that nobody pays. `behaviour`: throw-away objects are made at Stripe, in test mode only."""
    async with _bench(config, issue) as bench:
        checks = [_store, _bot, *_relay_checks(config), _stripe, _payee, _refunds]
        checks += [_rates, _relay_host]
        if behaviour:
            checks.append(_stripe_behaviour)
        found = await asyncio.gather(*(_guarded(check, bench) for check in checks))
    return [finding for findings in found for finding in findings]


@asynccontextmanager
async def _bench(config: Config, issue: bool) -> AsyncIterator[Bench]:
    clock, ids = SystemClock(config.sandbox.billing_offset_s), SystemIds()
    egress = Egress(allow_private=config.sandbox.allow_private)
    pool = RelayPool(egress, clock, ids, keys=config.keys)
    async with httpx.AsyncClient(timeout=config.rates.timeout_s) as http:
        try:
            yield Bench(config, clock, ids, pool, http, issue)
        finally:
            await pool.close()


Check = Callable[[Bench], Awaitable[Sequence[Finding]]]


async def _guarded(check: Check, bench: Bench) -> Sequence[Finding]:
    """A check that breaks is a finding, and the others go on."""
    name = check.__name__.strip("_").replace("_", " ")
    try:
        async with asyncio.timeout(ONE_CHECK_S):
            return await check(bench)
    except TimeoutError:
        return [Finding(name, Verdict.FAILED, f"no answer within {ONE_CHECK_S:.0f} s")]
    except (PurserError, OSError, httpx.HTTPError) as error:
        return [Finding(name, Verdict.FAILED, describe(error))]


# --- our own house ------------------------------------------------------------------------------


def sqlite_status(version: tuple[int, ...]) -> tuple[Verdict, str]:
    """The version's name, and what the WAL-reset bug means for it (facts: fixed in 3.51.3 and in
    3.50.7, 3.44.6 of the older branches)."""
    name = ".".join(map(str, version))
    fixed = version >= WAL_FIXED[-1] or any(
        version[:2] == fix[:2] and version >= fix for fix in WAL_FIXED
    )
    if fixed:
        return Verdict.OK, f"SQLite {name}, without the WAL-reset bug"
    return Verdict.OK, (
        f"SQLite {name} has the WAL-reset bug; harmless here: one process writes over one"
        " connection, guarded by a lock file. Never write to the database with other tools"
    )


async def _store(bench: Bench) -> list[Finding]:
    config = bench.config
    path = sqlite_path(config.store_url)
    findings = []
    if path is not None:
        findings.append(Finding("SQLite", *sqlite_status(sqlite3.sqlite_version_info)))
        new = _new_database(Path(path))
        if new is not None:
            return [*findings, new]
    engine = await open_engine(config.store_url, read_only=True)
    try:
        steps = await pending(engine)
        version = await engine.schema_version()
    except NewerDatabase as error:
        return [*findings, Finding("database", Verdict.FAILED, str(error))]
    finally:
        await engine.close()
    text = f"{engine.dialect}, schema version {version}"
    if steps:
        text += f"; {len(steps)} migration(s) will be applied at the next start"
    return [*findings, Finding("database", Verdict.OK, text)]


def _new_database(path: Path) -> Finding | None:
    """Where there is none yet, the nearest directory that exists must let us write."""
    if path.exists():
        return None
    place = path.parent
    while not place.exists():
        place = place.parent
    if os.access(place, os.W_OK | os.X_OK):
        return Finding("database", Verdict.OK, f"{path} will be made at the first start")
    return Finding("database", Verdict.FAILED, f"{place} cannot be written to; chown it")


async def _bot(bench: Bench) -> list[Finding]:
    config = bench.config
    npub = config.keys.npub
    try:
        running = await find_running(config.data_dir)
    except ControlFailed as error:
        return [Finding("bot", Verdict.WARN, f"{npub}; {error}")]
    url = f"http://{config.http.host}:{config.http.port}/readyz"
    try:
        answer = await bench.http.get(url)
    except httpx.HTTPError as error:
        if running is None:
            return [Finding("bot", Verdict.OK, f"{npub}, not running")]
        return [Finding("bot", Verdict.WARN, f"{npub} runs, but {url}: {describe(error)}")]
    if running is None:
        text = f"{npub} is not running, yet something answers on {url}; change http.port"
        return [Finding("bot", Verdict.FAILED, text)]
    if answer.status_code == 200:
        return [Finding("bot", Verdict.OK, f"{npub} runs and is ready")]
    return [Finding("bot", Verdict.WARN, f"{npub} runs, but is not ready: {answer.text[:200]}")]


# --- relays -------------------------------------------------------------------------------------


def _relay_checks(config: Config) -> list[Check]:
    own = [_relay_check(url, Verdict.FAILED) for url in config.bot.relays]
    others = [url for url in config.bot.indexer_relays if url not in config.bot.relays]
    return own + [_relay_check(url, Verdict.WARN) for url in others]


def _relay_check(url: str, when_away: Verdict) -> Check:
    """Our own relays must answer; of the indexers one may be away."""

    async def look(bench: Bench) -> list[Finding]:
        name = f"relay {url}"
        lease = bench.pool.acquire(url, trusted=True, auth=True)
        if not isinstance(lease, Lease):
            return [Finding(name, when_away, lease.reason)]
        try:
            if await lease.connection.opened(RELAY_S):
                return [Finding(name, Verdict.OK, "connected")]
            why = lease.connection.last_error or "no connection"
            return [Finding(name, when_away, f"{why}; is the address right, and the relay up?")]
        finally:
            lease.release()

    return look


# --- those who have modules of their own --------------------------------------------------------


async def _stripe(bench: Bench) -> list[Finding]:
    return [
        Finding(what, Verdict(verdict), text)
        for what, verdict, text in await check_stripe(bench.config, bench.http, bench.clock.now())
    ]


async def _stripe_behaviour(bench: Bench) -> list[Finding]:
    told = await check_behaviour(bench.config, bench.http, bench.ids.new("check"))
    return [Finding(what, Verdict(verdict), text) for what, verdict, text in told]


async def _payee(bench: Bench) -> list[Finding]:
    return [
        Finding(what, Verdict(verdict), text)
        for what, verdict, text in await check_payee(
            bench.config, bench.pool, bench.clock, bench.ids, issue=bench.issue
        )
    ]


async def _refunds(bench: Bench) -> list[Finding]:
    return [
        Finding(what, Verdict(verdict), text)
        for what, verdict, text in await check_refunds(
            bench.config, bench.pool, bench.clock, bench.ids
        )
    ]


async def _rates(bench: Bench) -> list[Finding]:
    config = bench.config
    currencies = sorted({plan.currency for plan in config.catalogue() if not plan.is_free})
    if config.payee.nwc is None or not currencies:
        return []
    sources = build_rate_sources(
        config.rates.sources, bench.http, bench.clock, base_url=config.rates.base_url
    )
    book = RateBook(sources, bench.clock, rules=config.rate_rules())
    findings = []
    for currency in currencies:
        name = f"exchange rate {currency}"
        try:
            rate = await book.quote(currency)
        except NoQuote as error:
            text = f"{error.what}. No payment request is issued without a rate"
            findings.append(Finding(name, Verdict.FAILED, text))
        else:
            text = f"{rate.price} for one bitcoin, from {', '.join(rate.sources)}"
            findings.append(Finding(name, Verdict.OK, text))
    return findings


async def _relay_host(bench: Bench) -> list[Finding]:
    section = bench.config.relay_host
    async with new_client(section.timeout_s) as client:
        tools = relay_hosts.Tools(
            client=client,
            authorize=nip98_authorize(bench.config.keys, bench.clock.now),
            secret_of=_no_secret,
            sandbox=bench.config.sandbox.enabled,
        )
        problems = await relay_hosts.build(section, tools).check()
    kind = section.kind
    if not problems:
        return [Finding("relay host", Verdict.OK, f"{kind} answers and knows our key")]
    return [Finding("relay host", Verdict.FAILED, problem) for problem in problems]


def _no_secret(relay_id: str) -> str:
    raise AssertionError(f"a check makes no relay: {relay_id}")
