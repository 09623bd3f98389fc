"""Signed webhooks to the endpoints: retried, and on request doubled, swapped or dropped."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections import deque
from dataclasses import dataclass, field

import httpx

from bot.sandbox.stripe.errors import Obj
from bot.sandbox.stripe.world import World, view

_log = logging.getLogger(__name__)
TIMEOUT_S = 10.0  # Stripe gives an endpoint about ten seconds
CONCURRENT = 16


@dataclass(slots=True)
class Misbehaviour:
    """Counters are used up by the events that follow; types limit what they apply to."""

    duplicate: int = 0
    """The next n events are each sent twice."""
    drop: int = 0
    """The next n events are not sent at all: only the events list shows them."""
    reorder: int = 0
    """The next n events are held and then sent in reverse."""
    delay_s: float = 0.0
    """Wall seconds before each first attempt."""
    paused: bool = False
    """Nothing is sent until it is lifted."""
    types: tuple[str, ...] = ()

    def hits(self, type_: str) -> bool:
        return not self.types or type_ in self.types


@dataclass(slots=True)
class Attempt:
    """One POST to an endpoint; `status` 0 means no answer."""

    event: str
    type: str
    endpoint: str
    status: int


@dataclass(slots=True)
class Delivery:
    """Watches the world's events; back-off is wall time and short, Stripe's lasts three days."""

    world: World
    first_retry_s: float = 0.2
    longest_retry_s: float = 5.0
    max_attempts: int = 12
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)
    attempts: deque[Attempt] = field(default_factory=lambda: deque(maxlen=10_000))
    _client: httpx.AsyncClient | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _fresh: set[asyncio.Task[None]] = field(default_factory=set)
    _held: list[Obj] = field(default_factory=list)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONCURRENT))

    async def start(self) -> None:
        """Watch from now on."""
        self.world.on_event.append(self._on_event)

    async def stop(self) -> None:
        """Cancel what is still to be sent."""
        if self._on_event in self.world.on_event:
            self.world.on_event.remove(self._on_event)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def settled(self, timeout_s: float = 5.0) -> None:
        """Every first attempt has been answered, or the time is over."""
        fresh = set(self._fresh)
        if fresh:
            await asyncio.wait(fresh, timeout=timeout_s)

    def resend(self, event_id: str) -> bool:
        """Send an event again to every endpoint, as the Dashboard does."""
        event = self.world.table("event").get(event_id)
        if event is not None:
            self._send(event)
        return event is not None

    def release(self) -> None:
        """Send what was held back, newest first."""
        held, self._held = self._held, []
        for event in reversed(held):
            self._send(event)

    def _endpoints(self, event: Obj) -> list[Obj]:
        return [
            e
            for e in self.world.table("webhook_endpoint").values()
            if e["status"] == "enabled"
            and ("*" in e["enabled_events"] or event["type"] in e["enabled_events"])
        ]

    def _on_event(self, event: Obj) -> None:
        targets = self._endpoints(event)
        event["pending_webhooks"] = len(targets)
        if not targets:
            self._acknowledged(event)
            return
        bad = self.misbehaviour
        if bad.drop > 0 and bad.hits(event["type"]):
            bad.drop -= 1
            event["_failed"] = True
            return
        if bad.paused:
            self._held.append(event)
            return
        if bad.reorder > 0 and bad.hits(event["type"]):
            bad.reorder -= 1
            self._held.append(event)
            if bad.reorder == 0:
                self.release()
            return
        self._send(event)
        if bad.duplicate > 0 and bad.hits(event["type"]):
            bad.duplicate -= 1
            self._send(event)

    def _send(self, event: Obj) -> None:
        for endpoint in self._endpoints(event):
            first = asyncio.Event()
            task = asyncio.get_running_loop().create_task(self._deliver(event, endpoint, first))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            waiter = asyncio.get_running_loop().create_task(_until(first, task))
            self._fresh.add(waiter)
            self._tasks.add(waiter)
            waiter.add_done_callback(self._fresh.discard)
            waiter.add_done_callback(self._tasks.discard)

    async def _deliver(self, event: Obj, endpoint: Obj, first: asyncio.Event) -> None:
        pause = self.first_retry_s
        if self.misbehaviour.delay_s:
            await asyncio.sleep(self.misbehaviour.delay_s)
        for _ in range(self.max_attempts):
            async with self._slots:
                status = await self._post(event, endpoint)
            self.attempts.append(Attempt(event["id"], event["type"], endpoint["id"], status))
            if 200 <= status < 300:
                self._delivered(event, endpoint)
                first.set()
                return
            first.set()
            event["_failed"] = True
            await asyncio.sleep(pause)
            pause = min(pause * 2, self.longest_retry_s)

    async def _post(self, event: Obj, endpoint: Obj) -> int:
        body = json.dumps(view(self.world, event), indent=2).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "Stripe-Signature": sign(body, endpoint["_secret"], self.world.clock.real()),
        }
        if self._client is None:  # loading certificates takes a while: not before it is needed
            self._client = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)
        try:
            answer = await self._client.post(endpoint["url"], content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            _log.debug("webhook not delivered: %s", type(e).__name__)
            return 0
        return answer.status_code

    def _delivered(self, event: Obj, endpoint: Obj) -> None:
        done: set[str] = event.setdefault("_done", set())
        if endpoint["id"] in done:
            return
        done.add(endpoint["id"])
        event["pending_webhooks"] = max(0, event["pending_webhooks"] - 1)
        if event["pending_webhooks"] == 0:
            event["_failed"] = False
            self._acknowledged(event)

    def _acknowledged(self, event: Obj) -> None:
        """An invoice's own clock to finalization starts when its webhooks were delivered."""
        if event["type"] != "invoice.created":
            return
        invoice = self.world.table("invoice").get(event["data"]["object"]["id"])
        if invoice is None or invoice["webhooks_delivered_at"] is not None:
            return
        now = self.world.now()
        invoice["webhooks_delivered_at"] = now
        due = invoice["automatically_finalizes_at"]
        if due is not None and now > invoice["created"] + self.world.settings.draft_s:
            invoice["automatically_finalizes_at"] = now + self.world.settings.draft_s
            self.world.schedule(invoice["automatically_finalizes_at"], "finalize", invoice["id"])


async def _until(first: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Ends at the first answer, or when the delivery ended without one."""
    waiting = asyncio.get_running_loop().create_task(first.wait())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def sign(body: bytes, secret: str, at_s: int) -> str:
    """`Stripe-Signature` of a body: `t=…,v1=…`, HMAC-SHA256 over `t.body`."""
    mac = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256)
    return f"t={at_s},v1={mac.hexdigest()}"
