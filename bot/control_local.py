"""Does what an operator asks for, in this process: inside the running bot, or while none runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Final

from billing.lease import LEASE_S
from billing.model import PaymentRequest, RelayState, RequestState
from billing.observations import resolve_by_operator
from billing.ports import RelayAnswer
from billing.reconcile import Reconciler
from billing.reconcile_rules import Difference
from billing.reconcile_sweep import Failure, Heard, Progress
from billing.relays import tell_again
from billing.store import payments, tenants
from billing.store.engine import Tx
from billing.store.migrate import require_current
from billing.store.open import open_engine
from bot.build import Core, Parts, build
from bot.config import Config
from bot.control import (
    ControlFailed,
    ControlRefused,
    ControlServer,
    Hear,
    Json,
    Operator,
    find_running,
    socket_path,
)
from bot.control_dunning import DunningControl
from bot.control_events import EventControl
from bot.control_refunds import RefundControl
from bot.logs import redact
from bot.nostr import nip17
from bot.nostr.directory import Directory, Found
from bot.nostr.nip17 import MessageError

HEARD: Final = {Difference: "difference", Progress: "progress", Failure: "failure"}
MAX_REASON_CHARS: Final = 240
"""One line of the audit log."""


@dataclass(slots=True)
class LocalOperator:
    """Implements `bot.control.Operator`; what it changes is acted on by the workers of a bot."""

    core: Core
    reconciler: Reconciler

    async def status(self) -> Json:
        """Who this is."""
        return {"pid": os.getpid(), "npub": self.core.config.keys.npub}

    async def reconcile(self, *, dry_run: bool, hear: Hear) -> Json:
        """Without `dry_run` missed events are read first, and what differs is put right."""
        if not dry_run:
            await self.reconciler.catch_up()

        def tell(heard: Heard) -> None:
            hear({HEARD[type(heard)]: asdict(heard)})

        return asdict(await self.reconciler.sweep(dry_run=dry_run, hear=tell))

    async def apply_relays(self, relay: str | None) -> Json:
        """See `Operator`; raises `ControlRefused` for a relay that is not there to be told of."""
        async with self.core.rt.unit() as unit:
            if relay is not None:
                known = await tenants.relay(unit.tx, relay)
                known = known or await tenants.living_relay_named(unit.tx, relay)
                if known is None:
                    raise ControlRefused(f"there is no relay {relay}")
                if known.state in (RelayState.PENDING_PAYMENT, RelayState.ENDED):
                    raise ControlRefused(
                        f"relay {known.name} is {known.state.value}: the relay host has nothing of"
                        " it to be told"
                    )
            return {"told": await tell_again(unit, relay)}

    async def resolve(self, thing: str, *, settled: bool, reason: str) -> Json:
        """See `Operator`; raises `ControlRefused` with what stands against it."""
        reason = redact(" ".join(reason.split()))[:MAX_REASON_CHARS]
        if not reason:
            raise ControlRefused("a reason is needed: it goes into the audit log")
        rt = self.core.rt
        async with rt.unit() as unit:
            request = await _find(unit.tx, thing)
            if request is None:
                raise ControlRefused(f"there is no payment request {thing}")
            _allow(request, settled=settled, now=unit.now)
            await unit.record(
                "operator.resolved",
                tenant=request.tenant,
                subject=request.id,
                invoice=request.invoice_id,
                verdict="settled" if settled else "dead",
                reason=reason,
            )
            state = await resolve_by_operator(rt, unit, request, settled=settled)
        return {"request": request.id, "invoice": request.invoice_id, "state": state.value}

    async def refund(
        self, invoice: str, *, amount: str | None, to: str | None, reason: str, again: bool
    ) -> Json:
        """See `bot.control_refunds`."""
        return await RefundControl(self.core).refund(invoice, amount, to, reason, again=again)

    async def credit(
        self, pubkey: str, *, amount: str, currency: str | None, reason: str, again: bool
    ) -> Json:
        """See `bot.control_refunds`."""
        return await RefundControl(self.core).credit(pubkey, amount, currency, reason, again=again)

    async def decide_refund(self, refund: str, *, paid: bool, reason: str) -> Json:
        """See `bot.control_refunds`."""
        return await RefundControl(self.core).decide(refund, paid=paid, reason=reason)

    async def adopt_balance(self, pubkey: str, *, reason: str) -> Json:
        """See `bot.control_refunds`."""
        return await RefundControl(self.core).adopt_balance(pubkey, reason=reason)

    async def replay_events(
        self, event_ids: Sequence[str], *, since: int | None, only_failed: bool
    ) -> Json:
        """See `bot.control_events`."""
        return await EventControl(self.core.rt).replay(
            event_ids, since=since, only_failed=only_failed
        )

    async def dunning(
        self, what: str, *, invoice: str | None, days: int | None, reason: str
    ) -> Json:
        """See `bot.control_dunning`."""
        return await DunningControl(self.core.rt).change(what, invoice, days, reason)

    async def send_dm(self, pubkey: str, text: str) -> list[Json]:
        """Wrapped and published at once, beside the outbox: the answers are the point."""
        core = self.core
        try:
            wrap = nip17.send(
                core.config.keys,
                pubkey,
                text,
                now=core.clock.now(),
                token_bytes=core.ids.token_bytes,
            )
        except MessageError as error:
            raise ControlRefused(f"the message is {error}") from error
        directory = Directory(core.pool, core.clock, core.config.bot.indexer_relays)
        try:
            inbox = await directory.inbox(pubkey)
        finally:
            await directory.close()
        relays = inbox.relays if isinstance(inbox, Found) else tuple(core.config.bot.relays)
        trusted = set(core.config.bot.relays)
        ours = [url for url in relays if url in trusted]
        theirs = [url for url in relays if url not in trusted]
        told = await core.pool.publish_many(ours, wrap, trusted=True, auth=True)
        told |= await core.pool.publish_many(theirs, wrap, auth=True)
        answers = [RelayAnswer(url, said.accepted, said.message) for url, said in told.items()]
        await self._note_dm(pubkey, answers)
        return [asdict(answer) for answer in answers]

    async def _note_dm(self, pubkey: str, answers: Sequence[RelayAnswer]) -> None:
        """That it was sent, never what it said."""
        async with self.core.rt.unit() as unit:
            await unit.record(
                "operator.dm",
                tenant=pubkey,
                subject=pubkey,
                accepted=[a.relay_url for a in answers if a.accepted],
            )


async def _find(tx: Tx, thing: str) -> PaymentRequest | None:
    """By its id, its payment hash, the id of an attempt on it, or of its invoice."""
    found = await payments.request(tx, thing) or await payments.request_by_hash(tx, thing)
    if found is not None:
        return found
    attempt = await payments.attempt(tx, thing)
    if attempt is not None:
        if attempt.request_id is None:
            raise ControlRefused(f"{thing} is a card payment: Stripe decides that one")
        return await payments.request(tx, attempt.request_id)
    of_invoice = await tx.fetch_all(PaymentRequest, "payments.requests_of", invoice_id=thing)
    still_open = [request for request in of_invoice if request.state is RequestState.OPEN]
    if of_invoice and not still_open:
        raise ControlRefused(f"invoice {thing} has no open payment request; name one by its id")
    return still_open[0] if still_open else None


def _allow(request: PaymentRequest, *, settled: bool, now: int) -> None:
    """M2: only what our wallet can no longer decide, after expiry and margin."""
    if request.state is RequestState.SETTLED:
        raise ControlRefused(f"{request.id} is settled already, and that is final")
    if request.state is RequestState.DEAD and not settled and request.claimed_at is None:
        raise ControlRefused(f"{request.id} is dead already")
    wait_s = request.expires_at + request.margin_s - now
    if wait_s > 0:
        raise ControlRefused(
            f"{request.id} may still be paid: it expires, and the payee's margin ends, in"
            f" {-(-wait_s // 60)} min. Until then our own wallet is asked"
        )


@asynccontextmanager
async def open_operator(config: Config) -> AsyncIterator[Operator]:
    """The running bot, or this process in its place while none runs.

    Raises `StoreLocked` when a bot holds the database but does not listen here, `ControlFailed`
    when one on another machine does, `OutdatedDatabase`.
    """
    running = await find_running(config.data_dir)
    if running is not None:
        yield running
        return
    engine = await open_engine(config.store_url)
    try:
        await require_current(engine)
        parts = build(config, engine)
        core = parts.core
        await _take_lease(core)
        try:
            yield LocalOperator(core, parts.workers.reconciler)
        finally:
            await core.wallets.close()
            await core.pool.close()
            await core.http.aclose()
            await core.host_http.aclose()
            await core.stripe.close()
            await core.lease.release()
    finally:
        await engine.close()


async def _take_lease(core: Core) -> None:
    """A bot that was killed leaves its lease behind: it runs out by itself."""
    for _ in range(LEASE_S + 1):
        if await core.lease.take():
            return
        await asyncio.sleep(1)
    raise ControlFailed("another Purser is active on this database, on another machine")


def control_server(parts: Parts) -> ControlServer:
    """The socket of a running bot; its `run` is a service of the supervisor."""
    operator = LocalOperator(parts.core, parts.workers.reconciler)
    return ControlServer(socket_path(parts.core.config.data_dir), operator)
