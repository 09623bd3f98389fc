"""One open socket to a relay: reads, dispatches, writes, and forgets everything when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, assert_never

import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from bot.nostr.answers import Answered, NotWritten, PublishOutcome, Unanswered
from bot.nostr.events import Event
from bot.nostr.messages import (
    AuthReceived,
    ClosedReceived,
    EoseReceived,
    EventReceived,
    NoticeReceived,
    OkReceived,
    RelayMessage,
    UnknownReceived,
    WireError,
    encode_auth,
    encode_close,
    encode_req,
    parse_relay_message,
)
from bot.nostr.query import Query
from bot.nostr.relay_auth import AuthState, RelayAuth, asks_for_auth
from bot.nostr.relay_outbox import Outbox, SocketLost
from bot.nostr.relay_policy import RelayLimits

log = structlog.get_logger(__name__)

Permit: TypeAlias = Callable[[], bool]


@dataclass(slots=True)
class RelayCounters:
    """What was dropped, over all sockets of one connection."""

    malformed: int = 0
    unasked: int = 0
    notices: int = 0
    failed_deliveries: int = 0


@dataclass(slots=True)
class _Waiting:
    """An event whose OK is awaited. `refusal` is an `auth-required:` that may yet be lifted."""

    text: str
    once: bool
    done: asyncio.Future[PublishOutcome]
    refusal: str | None = None


class RelaySession:
    """`run()` returns why the socket was lost; everything else may be called while it runs."""

    def __init__(
        self,
        socket: ClientConnection,
        queries: Mapping[str, Query],
        auth: RelayAuth,
        limits: RelayLimits,
        counters: RelayCounters,
        heard: Callable[[], None],
    ) -> None:
        self._socket = socket
        self._queries = queries
        self._auth = auth
        self._limits = limits
        self._counters = counters
        self._heard = heard
        self._waiting: dict[str, list[_Waiting]] = {}
        self._outbox = Outbox(socket, limits.send_s, limits.max_control)
        self._auth_settled = asyncio.Event()
        self._timers: set[asyncio.TimerHandle] = set()
        self._ended = False

    @property
    def is_open(self) -> bool:
        """Whether a write now would go to the network."""
        return not self._ended and self._socket.state is State.OPEN

    # --- life -----------------------------------------------------------------------------------

    async def run(self) -> str:
        """Read until the socket is lost. Always closes it, within `close_s`."""
        reader = asyncio.create_task(self._read())
        writer = asyncio.create_task(self._outbox.run())
        for query in list(self._queries.values()):
            self.subscribe(query)
        tasks = (reader, writer)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._end()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()
        bugs = [r for r in results if isinstance(r, Exception) and not isinstance(r, SocketLost)]
        if bugs:
            log.error("relay_session_failed", error=type(bugs[0]).__name__)
        return next((str(r) for r in results if isinstance(r, SocketLost)), "internal error")

    def _end(self) -> None:
        self._ended = True
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        for waiters in self._waiting.values():
            for waiter in waiters:
                _settle(waiter, Unanswered("the socket was lost"))
        for query in list(self._queries.values()):
            query.mark(ready=False, eose=False)

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(self._limits.close_s):
                await self._socket.close()
        except (TimeoutError, OSError):
            pass
        finally:
            self._socket.transport.abort()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        busy_s = 0.0
        while True:
            try:
                frame = await self._socket.recv()
            except ConnectionClosed as closed:
                raise SocketLost(_reason(closed)) from None
            self._heard()
            began = loop.time()
            try:
                message = parse_relay_message(frame)
            except WireError:
                self._counters.malformed += 1
            else:
                self._dispatch(message)
            busy_s += loop.time() - began
            if busy_s > self._limits.busy_s:
                # As long a rest as the work: one relay's flood takes half of the loop at most, and
                # what it sends meanwhile waits in its own socket.
                await asyncio.sleep(busy_s)
                busy_s = 0.0

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            action()

        timer = asyncio.get_running_loop().call_later(delay_s, run)
        self._timers.add(timer)

    # --- writing --------------------------------------------------------------------------------

    async def publish(
        self,
        event_id: str,
        event_json: str,
        *,
        once: bool,
        permit: Permit | None,
        timeout_s: float,
    ) -> PublishOutcome:
        """Write the event and wait for the relay's OK.

        `once`: no second write whatever happens, and none behind data that has not left yet.
        `permit` is asked in the same step of the loop as the write.
        """
        if self._auth.state is AuthState.PENDING:
            await self._auth_done(timeout_s)
        refused = self._obstacle(once)
        if refused is None and permit is not None and not permit():
            refused = "no longer permitted"
        if refused is not None:
            return NotWritten(refused)
        # No await between the permit and the socket's own synchronous write.
        done: asyncio.Future[PublishOutcome] = asyncio.get_running_loop().create_future()
        waiter = _Waiting(f'["EVENT",{event_json}]', once, done)
        self._waiting.setdefault(event_id, []).append(waiter)
        try:
            await self._outbox.write(waiter.text)
            async with asyncio.timeout(timeout_s):
                return await done
        except SocketLost as lost:
            return Unanswered(str(lost))
        except TimeoutError:
            refusal = waiter.refusal
            return Unanswered() if refusal is None else Answered(False, refusal)
        finally:
            self._waiting[event_id].remove(waiter)
            if not self._waiting[event_id]:
                del self._waiting[event_id]

    def _obstacle(self, once: bool) -> str | None:
        if not self.is_open:
            return "no open socket"
        if len(self._waiting) >= self._limits.max_waiting:
            return "too many events wait for this relay's answer"
        if once and self._outbox.is_behind:
            return "earlier data has not left yet"
        return None

    async def _auth_done(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(min(timeout_s, self._limits.auth_s)):
                await self._auth_settled.wait()
        except TimeoutError:
            pass

    def subscribe(self, query: Query) -> None:
        """(Re-)send the REQ."""
        if query.is_closed:
            return
        query.mark(ready=False, eose=False)

        def grace_over() -> None:
            if not query.is_closed and query.closed_reason is None and not query.ready:
                query.mark(ready=True)

        self._outbox.say(
            encode_req(query.id, *query.ask()),
            lambda: self._later(self._limits.lone_req_s, grace_over),
        )

    def unsubscribe(self, query: Query) -> None:
        """Send CLOSE."""
        self._outbox.say(encode_close(query.id))

    # --- reading --------------------------------------------------------------------------------

    def _dispatch(self, message: RelayMessage) -> None:
        match message:
            case EventReceived():
                self._on_event(message)
            case OkReceived():
                self._on_ok(message)
            case EoseReceived():
                query = self._queries.get(message.subscription_id)
                if query is not None:
                    query.refusals = 0
                    query.mark(ready=True, eose=True)
            case ClosedReceived():
                self._on_closed(message)
            case AuthReceived():
                self._authenticate(self._auth.challenged(message.challenge))
            case NoticeReceived():
                self._counters.notices += 1
                if asks_for_auth(message.message):
                    self._authenticate(self._auth.wanted())
            case UnknownReceived():
                pass
            case _:
                assert_never(message)

    def _on_event(self, message: EventReceived) -> None:
        query = self._queries.get(message.subscription_id)
        if query is None:
            self._counters.unasked += 1
            return
        try:
            query.take(message.event)
        except Exception as error:
            # One receiver's bug must not take the socket from the others who share it.
            self._counters.failed_deliveries += 1
            log.error("nostr_delivery_failed", error=type(error).__name__, kind=message.event.kind)

    def _on_ok(self, message: OkReceived) -> None:
        if self._auth.answered(message.event_id, message.accepted):
            self._after_auth()
            return
        for waiter in list(self._waiting.get(message.event_id, ())):
            blocked = not message.accepted and not waiter.once and self._lifts(message.message)
            if blocked:
                waiter.refusal = message.message
            else:
                _settle(waiter, Answered(message.accepted, message.message))

    def _on_closed(self, message: ClosedReceived) -> None:
        query = self._queries.get(message.subscription_id)
        if query is None:
            return
        query.mark(ready=False, closed_reason=message.message or "closed by the relay")
        if not self._lifts(message.message):
            query.refusals += 1
        # Also where authentication may lift it: the challenge may never come.
        delay_s = self._limits.closed_retry_s * 2.0 ** min(query.refusals, 16)

        def retry() -> None:
            if query.closed_reason is not None:
                self.subscribe(query)

        self._later(min(delay_s, self._limits.closed_retry_max_s), retry)

    def _lifts(self, message: str) -> bool:
        """Whether authentication may lift this refusal; starts it when there is a challenge."""
        if not asks_for_auth(message) or not self._auth.may_help():
            return False
        self._authenticate(self._auth.wanted())
        return True

    # --- NIP-42 ---------------------------------------------------------------------------------

    def _authenticate(self, event: Event | None) -> None:
        if event is None:
            return
        self._auth_settled.clear()

        def give_up() -> None:
            if self._auth.gave_up(event.id):
                self._after_auth()

        self._outbox.say(encode_auth(event), lambda: self._later(self._limits.auth_s, give_up))

    def _after_auth(self) -> None:
        self._auth_settled.set()
        if self._auth.state is AuthState.ACCEPTED:
            # All of them: what was answered before may have been answered in part.
            for query in list(self._queries.values()):
                self.subscribe(query)
        else:
            for query in [q for q in self._queries.values() if q.closed_reason is not None]:
                query.refusals += 1
                query.mark(ready=False, closed_reason=query.closed_reason)
        for waiter in [w for waiters in self._waiting.values() for w in waiters]:
            if self._auth.state is AuthState.ACCEPTED and not waiter.once:
                self._outbox.say(waiter.text)
            elif waiter.refusal is not None:
                _settle(waiter, Answered(False, waiter.refusal))


def _settle(waiter: _Waiting, outcome: PublishOutcome) -> None:
    if not waiter.done.done():
        waiter.done.set_result(outcome)


def _reason(closed: ConnectionClosed) -> str:
    frame = closed.rcvd or closed.sent
    return f"closed with {frame.code}" if frame is not None else "the connection broke"
