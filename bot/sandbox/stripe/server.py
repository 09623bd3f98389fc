"""`EmbeddedStripe`: the whole as one object, listening on loopback inside the running loop."""

from __future__ import annotations

import asyncio
import importlib
import secrets
import socket
from collections.abc import Awaitable, Callable

import uvicorn

from bot.sandbox.stripe import webhook_endpoints
from bot.sandbox.stripe.app import App
from bot.sandbox.stripe.clock import SandboxClock
from bot.sandbox.stripe.delivery import Delivery
from bot.sandbox.stripe.errors import Obj
from bot.sandbox.stripe.faults import Faults
from bot.sandbox.stripe.idempotency import IdempotencyKeys
from bot.sandbox.stripe.schedule import Schedule
from bot.sandbox.stripe.world import Settings, World

RESOURCES = [
    "account",
    "balance",
    "credit_notes",
    "customers",
    "disputes",
    "events",
    "invoice_payments",
    "invoice_preview",
    "invoiceitems",
    "invoices",
    "payment_intents",
    "payment_methods",
    "portal",
    "prices",
    "products",
    "refunds",
    "subscription_items",
    "subscriptions",
    "webhook_endpoints",
]
STOP_S = 1.0

for _name in RESOURCES:  # each registers its endpoints
    importlib.import_module(f"bot.sandbox.stripe.{_name}")


class EmbeddedStripe:
    """A Stripe that lives in memory and listens on loopback.

    `start()` returns the base URL for `base_addresses={"api": url}` (or `stripe.api_base`). Its
    state is in `world`; `faults`, `delivery.misbehaviour`, `world.settings` script it.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        settings: Settings | None = None,
        clock: SandboxClock | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.api_key = api_key or f"sk_test_{secrets.token_hex(12)}"
        self.world = World(clock=clock or SandboxClock(), settings=settings or Settings())
        self.faults = Faults()
        self.keys = IdempotencyKeys()
        self.delivery = Delivery(self.world)
        self.schedule = Schedule(self.world, self.delivery)
        self.app = App(self)
        self.base_url = ""
        self._address = (host, port)
        self._server: uvicorn.Server | None = None
        self._socket: socket.socket | None = None
        self._idle: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"EmbeddedStripe({self.base_url!r})"

    def add_webhook_endpoint(
        self, url: str, *, events: tuple[str, ...] = ("*",), secret: str | None = None
    ) -> str:
        """Register an endpoint as in the Dashboard; returns its signing secret."""
        endpoint = webhook_endpoints.make(self.world, url, list(events), secret)
        endpoint["_show"] = False
        found: str = endpoint["_secret"]
        return found

    @property
    def webhook_secrets(self) -> list[str]:
        """The signing secrets of all endpoints."""
        return [e["_secret"] for e in self.world.table("webhook_endpoint").values()]

    def on_tick(self, hook: Callable[[int], Awaitable[None]]) -> None:
        """`await hook(offset_s)` at each instant where something came due while time is moved."""
        self.schedule.on_tick.append(hook)

    async def advance(self, seconds: int, *, stop_at_due: bool = False) -> Obj:
        """What `POST /sandbox/clock` does, for callers in this process."""
        return await self.schedule.advance(self.world.now() + seconds, stop_at_due=stop_at_due)

    async def start(self) -> str:
        """Listen; returns the base URL. Errors: `OSError` when the port is taken."""
        self._socket = socket.create_server(self._address)
        host, port = self._socket.getsockname()[:2]
        config = uvicorn.Config(
            self.app, lifespan="off", log_config=None, log_level="critical", access_log=False,
            http="h11", ws="none", timeout_graceful_shutdown=1,
        )  # fmt: skip
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        # Not serve(): that would take the process's signal handlers.
        await self._server.startup(sockets=[self._socket])
        await self.delivery.start()
        self._idle = asyncio.get_running_loop().create_task(self.schedule.follow_real_time())
        self.base_url = f"http://{host}:{port}"
        self.world.settings.pages_url = self.base_url
        return self.base_url

    async def stop(self) -> None:
        """Stop listening and delivering; the state stays readable."""
        if self._idle is not None:
            self._idle.cancel()
            await asyncio.gather(self._idle, return_exceptions=True)
        await self.delivery.stop()
        if self._server is not None:
            await self._close(self._server)
            self._server = None

    async def _close(self, server: uvicorn.Server) -> None:
        """Like uvicorn's shutdown, without its fixed pause: calls in progress get a second."""
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        running = set(server.server_state.tasks)
        if running:
            _, late = await asyncio.wait(running, timeout=STOP_S)
            for task in late:
                task.cancel()

    async def __aenter__(self) -> EmbeddedStripe:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
