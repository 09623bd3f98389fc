"""Runs the bot: opens the store, takes the lease, starts the workers, stops in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import structlog

from billing.errors import ConfigurationWrong, PurserError
from billing.inbox import Reason
from billing.lag import LagWatch
from billing.lease import RENEW_EVERY_S
from billing.rebuild import Gated
from billing.store.open import open_engine
from bot.build import Parts, build
from bot.config import Config
from bot.dm.inbound import KIND_LEGACY, KIND_WRAP
from bot.http import HttpServer, create_app
from bot.metrics import Metrics
from bot.nostr.filters import Filter
from bot.nostr.identity import BotProfile, identity_events
from bot.nostr.pool import Lease as RelayLease
from bot.readings import Readings
from bot.start import own_database
from bot.supervise import Phase, Supervisor, Worker, periodic, service, stop_on_signals
from bot.systemd import Systemd

log = structlog.stdlib.get_logger("purser")

QUICK_S: Final = 1.0
"""Workers that money waits for look this often; a change wakes them at once."""
RECONCILE_S: Final = 900.0
"""What every webhook missed is found within a quarter of an hour."""
IDENTITY_S: Final = 86_400.0
SWEEP_S: Final = 60.0
PAYER_LOOKUPS_S: Final = 5.0
"""Steps of their schedule are minutes apart, and nothing that is committed makes one due."""
REBUILD_S: Final = 30.0
"""Once is enough, unless Stripe or our wallet could not be asked; back-off comes on top."""
RATES_S: Final = 15.0
PREFLIGHT_S: Final = 60.0
"""A few wallets a minute: a month's turn is spread over the days before it."""
DUNNING_S: Final = 30.0
"""Steps are days apart; payments and delivered messages wake it."""
READINGS_S: Final = 15.0
LAG_S: Final = 30.0
"""How soon it is noticed that a queue ran over, or that the machine has slept."""
RESEAL_S: Final = 5.0
"""Until everything is sealed with the first vault key; then it looks at nothing any more."""
CLOCK_POLL_S: Final = 0.5
READY_WITHIN_S: Final = 60.0
READY_LOOK_S: Final = 0.2
OPEN_WAIT_S: Final = 5.0


class RunOnce(Protocol):
    """A worker of billing."""

    async def run_once(self, now: int) -> int: ...


class App:
    """One bot: `run` returns after an orderly stop."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.supervisor = Supervisor(ids=parts.core.ids, alarm=self._alarm)
        self.metrics = Metrics()
        self.readings = Readings(parts, self.supervisor)
        self.metrics.add(self.readings.collect)
        self.stop = asyncio.Event()
        self.http = HttpServer(
            create_app(parts.intake.inbox, self.supervisor, self.metrics),
            host=parts.core.config.http.host,
            port=parts.core.config.http.port,
            trusted_proxies=parts.core.config.http.trusted_proxies,
        )
        self._look_now = asyncio.Event()
        self._inbox_since = 0
        self._inbox_leases: list[RelayLease] = []

    async def run(self) -> None:
        """Until `stop` is set or the lease is lost."""
        parts = self.parts
        try:
            ours = await own_database(parts.core.engine, parts.core.lease, self.stop)
        except BaseException:
            await self._close()
            raise
        if not ours:
            await self._close()
            return
        await self._check_account()
        if parts.core.config.payee.nwc is not None:
            await parts.core.book.configure_payee(parts.core.config.payee.nwc.get_secret_value())
        spender = parts.core.config.refunds.nwc
        await parts.core.spender_book.configure(spender.get_secret_value() if spender else None)
        self._inbox_since = await parts.intake.inbound.since()
        self.supervisor.require("inbox relays")
        self.supervisor.require("rebuild")
        self.supervisor.add(self._workers())
        systemd = Systemd(os.environ)
        watchdog = systemd.watchdog(self.supervisor, self._tiny_commit)
        if watchdog is not None:
            self.supervisor.add([watchdog])
        log.info(
            "bot.started", npub=parts.core.config.keys.npub, livemode=parts.core.config.livemode
        )
        told = asyncio.create_task(self._tell_systemd(systemd))
        try:
            await self.supervisor.run(self.stop)
        finally:
            told.cancel()
            await self._close()
            log.info("bot.stopped")

    async def _tell_systemd(self, systemd: Systemd) -> None:
        """Ready once everything runs (or a while has passed: a relay that is away must not have
        the bot killed), stopping as soon as it is told to."""
        deadline = asyncio.get_running_loop().time() + READY_WITHIN_S
        # Workers announce nothing; the report is asked for.
        while self.supervisor.not_ready() and (  # noqa: ASYNC110
            asyncio.get_running_loop().time() < deadline
        ):
            await asyncio.sleep(READY_LOOK_S)
        systemd.ready()
        await self.stop.wait()
        systemd.stopping()

    # --- start ----------------------------------------------------------------------------------

    async def _check_account(self) -> None:
        """The key must belong to the account and mode that the configuration names."""
        config = self.parts.core.config
        try:
            account = await self.parts.core.stripe.account()
        except PurserError as error:
            log.warning("stripe.not_checked", error=str(error))
            return
        if config.stripe.account is not None and account.id != config.stripe.account:
            raise ConfigurationWrong(
                "stripe.account", f"the key belongs to {account.id}, not {config.stripe.account}"
            )

    def _workers(self) -> list[Worker]:
        parts = self.parts
        return [
            service("http", self.http.run, phase=Phase.INTAKE),
            service("ingest", parts.intake.ingest.run, phase=Phase.WORK),
            service("lease", self._keep_lease),
            service("inbox relays", self._listen, phase=Phase.INTAKE),
            service("wallets", self._hear_wallets),
            self._worker("inbound", parts.intake.inbound, QUICK_S),
            self._rebuild(),
            self._gated("events", parts.workers.events, QUICK_S),
            self._gated("plans", parts.workers.plans, QUICK_S),
            self._gated("subscriptions", parts.workers.sync, QUICK_S),
            self._gated("collection", parts.workers.collector, QUICK_S),
            self._worker("resolver", parts.workers.resolver, QUICK_S),
            self._worker(
                "payer look-ups", parts.workers.payer_lookups, PAYER_LOOKUPS_S, wakes=False
            ),
            self._gated("settlements", parts.workers.placer, QUICK_S),
            self._gated("relays", parts.workers.keeper, QUICK_S),
            self._worker("outbox", parts.workers.outbox, QUICK_S),
            *self._cards(),
            self._gated("refunds", parts.workers.refunds, QUICK_S),
            self._gated("dunning", parts.workers.dunner, DUNNING_S),
            self._gated("preflight", parts.workers.preflight, PREFLIGHT_S, wake=asyncio.Event()),
            self._worker("rates", parts.workers.rate_watch, RATES_S, wakes=False),
            self._worker("prober", parts.workers.prober, QUICK_S),
            self._worker("idle wallets", parts.core.wallets, 60.0, wakes=False),
            self._worker("sweep", parts.workers.sweeper, SWEEP_S, wakes=False),
            self._worker("reseal", parts.workers.resealer, RESEAL_S, wakes=False),
            self._worker("retention", parts.workers.retention, SWEEP_S, wakes=False),
            self._worker("readings", self.readings, READINGS_S, wakes=False),
            self._gated("reconcile", parts.workers.reconciler, RECONCILE_S, wake=self._look_now),
            self._worker("lag", self._lag_watch(), LAG_S, wakes=False),
            self._periodic("identity", self._publish_identity, IDENTITY_S),
            *self._sandbox_workers(),
        ]

    def _lag_watch(self) -> LagWatch:
        intake = self.parts.intake

        def overflowed() -> int:
            return intake.inbox.counts[Reason.OVERLOADED] + intake.inbound.dropped

        return LagWatch(self.parts.core.rt, overflowed, self._look_now.set)

    def _cards(self) -> list[Worker]:
        if "card" not in self.parts.core.config.collection.rails:
            return []
        workers = self.parts.workers
        return [
            self._gated("cards", workers.cards, QUICK_S),
            self._gated("card pages", workers.card_pages, QUICK_S),
        ]

    def _gated(
        self, name: str, worker: RunOnce, every_s: float, *, wake: asyncio.Event | None = None
    ) -> Worker:
        """One that charges, books, orders or ends things: not before the rebuild is done."""
        gated = Gated(worker, self.parts.workers.rebuilder)

        async def run_once(now: int) -> None:
            await gated.run_once(now)

        wake = wake or self.parts.core.rt.wakeups.subscribe()
        return self._periodic(name, run_once, every_s, wake=wake)

    def _rebuild(self) -> Worker:
        rebuilder = self.parts.workers.rebuilder

        async def run_once(now: int) -> None:
            is_first = not rebuilder.done
            await rebuilder.run_once(now)
            if is_first:
                self.supervisor.done("rebuild")
                # The workers that waited look at once.
                self._look_now.set()
                self.parts.core.rt.wakeups.changed()

        return self._periodic("rebuild", run_once, REBUILD_S)

    def _worker(self, name: str, worker: RunOnce, every_s: float, *, wakes: bool = True) -> Worker:
        async def run_once(now: int) -> None:
            await worker.run_once(now)

        wake = self.parts.core.rt.wakeups.subscribe() if wakes else None
        return self._periodic(name, run_once, every_s, wake=wake)

    def _periodic(
        self,
        name: str,
        run_once: Callable[[int], Awaitable[None]],
        every_s: float,
        *,
        wake: asyncio.Event | None = None,
    ) -> Worker:
        return periodic(
            name,
            run_once,
            every_s=every_s,
            clock=self.parts.core.clock,
            ids=self.parts.core.ids,
            wake=wake,
        )

    # --- services -------------------------------------------------------------------------------

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            if not await self.parts.core.lease.renew():
                log.error("lease.lost", what="another instance took over; stopping")
                self.stop.set()

    async def _listen(self) -> None:
        """Subscribe to our own inbox on every configured relay; the pool keeps it alive."""
        parts = self.parts
        own = parts.core.config.keys.pubkey

        def filters() -> tuple[Filter, ...]:
            return (
                Filter(kinds=(KIND_WRAP, KIND_LEGACY), tags={"p": (own,)}, since=self._inbox_since),
            )

        try:
            for url in parts.core.config.bot.relays:
                lease = parts.core.pool.acquire(url, trusted=True, auth=True)
                if not isinstance(lease, RelayLease):
                    raise ConfigurationWrong("bot.relays", f"{url}: {lease.reason}")
                self._inbox_leases.append(lease)
                lease.connection.query(filters, parts.intake.inbound.offer)
            await self._until_one_is_open()
            while True:
                await asyncio.sleep(60)
                self._inbox_since = await parts.intake.inbound.since()
        finally:
            while self._inbox_leases:
                self._inbox_leases.pop().release()

    async def _until_one_is_open(self) -> None:
        waits = [lease.connection for lease in self._inbox_leases]
        while not any(connection.is_open for connection in waits):
            await asyncio.gather(*(connection.opened(OPEN_WAIT_S) for connection in waits))
        self.supervisor.done("inbox relays")

    async def _hear_wallets(self) -> None:
        """Late answers of a former life, and the payee's notifications."""
        while True:
            await self.parts.core.wallets.listen()
            await asyncio.sleep(300)

    async def _publish_identity(self, now: int) -> None:
        config = self.parts.core.config
        own = tuple(config.bot.relays)
        events = identity_events(
            config.keys,
            BotProfile(config.bot.name, config.bot.about),
            inbox_relays=own,
            write_relays=own,
            now=now,
        )
        for event in events:
            told = await self.parts.core.pool.publish_many(own, event, trusted=True, auth=True)
            told |= await self.parts.core.pool.publish_many(
                [u for u in config.bot.indexer_relays if u not in own], event, trusted=True
            )
            log.info(
                "identity.published",
                kind=event.kind,
                accepted=[url for url, answer in told.items() if answer.accepted],
            )

    def _sandbox_workers(self) -> list[Worker]:
        if (
            not self.parts.core.config.sandbox.enabled
            or self.parts.core.config.stripe.api_base is None
        ):
            return []
        return [service("sandbox clock", self._follow_sandbox_clock)]

    async def _follow_sandbox_clock(self) -> None:
        """Billing time is what the embedded Stripe lives in (two clocks)."""
        url = f"{self.parts.core.config.stripe.api_base}/sandbox/clock"
        while True:
            answer = await self.parts.core.http.get(url)
            if answer.status_code == 200:
                self.parts.core.clock.set_billing_offset(int(answer.json()["offset_s"]))
                self.parts.core.rt.wakeups.changed()
            await asyncio.sleep(CLOCK_POLL_S)

    # --- the rest -------------------------------------------------------------------------------

    async def _tiny_commit(self) -> None:
        async with self.parts.core.engine.transaction() as tx:
            await tx.execute(
                "leases.set_cursor", name="watchdog", value=str(self.parts.core.clock.now())
            )

    async def _alarm(self, name: str, text: str) -> None:
        async with self.parts.core.rt.unit() as unit:
            key = f"worker:{name}:{unit.now // 3600}"
            await self.parts.core.rt.alarm(unit, key, f"Worker {name} {text}")

    async def _close(self) -> None:
        parts = self.parts
        await parts.intake.ingest.stop()
        await parts.core.wallets.close()
        await parts.core.pool.close()
        await parts.core.http.aclose()
        await parts.core.host_http.aclose()
        await parts.core.stripe.close()
        if parts.core.lease.token:
            await parts.core.lease.release()
        await parts.core.engine.close()


async def run_app(
    config: Config, also: Callable[[Parts], Sequence[Worker]] = lambda parts: ()
) -> None:
    """The whole bot until SIGTERM or SIGINT, with what else the caller wants run beside it.

    Raises `PurserError` at the start: the store, the lease, the account.
    """
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = await open_engine(config.store_url)
    try:
        parts = build(config, engine)
        app = App(parts)
        app.supervisor.add(also(parts))
    except BaseException:
        await engine.close()
        raise
    stop_on_signals(app.stop)
    await app.run()
