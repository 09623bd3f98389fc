"""An event loop on virtual time: when nothing is ready, the clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from typing import Any

BASE: int = 1_800_000_000


class _Call:
    """A callback that waits for its turn: `asyncio.Handle` without what only real loops need."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "when")

    def __init__(
        self, callback: Callable[..., Any], args: Any, context: Any, when: float = 0.0
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self.is_cancelled = False
        self.when = when

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled


class VirtualLoop(asyncio.BaseEventLoop):
    """`time()` is virtual seconds since the start; nothing real is ever waited for.

    It has no selector and keeps its own queue and heap: a seed makes some 25 000 calls, and the
    stock loop spends more on each than the code under test.
    """

    def __init__(self) -> None:
        super().__init__()
        self.virtual = 0.0
        self._now: deque[_Call] = deque()
        self._later: list[tuple[float, int, _Call]] = []
        self._order = 0
        self._stopping: bool = False

    def time(self) -> float:
        return self.virtual

    # The signatures are the base class's; what it returns is only ever cancelled.

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        call = _Call(callback, args, context)
        self._now.append(call)
        return call

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        call = _Call(callback, args, context, when)
        self._order += 1
        # Among calls at one instant the first asked is the first served, on every machine.
        heappush(self._later, (when, self._order, call))
        return call

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_at(self.virtual + delay, callback, *args, context=context)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        return self.call_soon(callback, *args, context=context)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Any = None
    ) -> Any:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def _run_once(self) -> None:
        """What the base class calls until somebody stops the loop."""
        now, later = self._now, self._later
        while not self._stopping:
            if not now:
                assert later, "every task waits for something that nobody will do"
                when, _, call = heappop(later)
                if call.is_cancelled:
                    continue
                self.virtual = max(self.virtual, when)
            else:
                call = now.popleft()
                if call.is_cancelled:
                    continue
            try:
                call.context.run(call.callback, *call.args)
            except Exception as error:
                self.call_exception_handler({"message": "a callback failed", "exception": error})


class SimClock:
    """Implements `billing.ports.Clock`; wire and billing time move together."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> int:
        return BASE + int(self._loop.virtual + 1e-6)

    def billing_now(self) -> int:
        return self.now()


class SimIds:
    """Implements `billing.ports.Ids`: in order, so that a seed names the same things again."""

    def __init__(self) -> None:
        self.count = 0

    def new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}_{self.count:06d}"

    def token_bytes(self, count: int) -> bytes:
        self.count += 1
        return hashlib.shake_256(str(self.count).encode()).digest(count)

    def uniform(self) -> float:
        return 0.5
