"""A crash at the N-th step: every commit and every call of the outside world is one step or two."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from billing.store.engine import Dialect, MigratableEngine, Tx


class Crash(BaseException):
    """The process is gone; no `except Exception` may hold it up."""


class Tripwire:
    """Counts steps and crashes at one of them; afterwards nothing works any more."""

    def __init__(self, crash_at: int | None = None) -> None:
        self.crash_at = crash_at
        self.steps: list[str] = []
        self.is_dead = False
        self.is_armed = False

    def step(self, what: str) -> None:
        """One step; raises `Crash` at the chosen one and at everything after it."""
        if self.is_dead:
            raise Crash(what)
        if not self.is_armed:
            return
        self.steps.append(what)
        if len(self.steps) - 1 == self.crash_at:
            self.is_dead = True
            raise Crash(what)

    def hooks(self, stripe: Any) -> None:
        """Steps before and after every call of a fake Stripe."""

        def before(name: str, arguments: Mapping[str, Any]) -> None:
            self.step(f"before stripe {name}")

        def after(name: str, arguments: Mapping[str, Any]) -> None:
            self.step(f"after stripe {name}")

        stripe.before, stripe.after = before, after


class CrashingEngine:
    """An engine with a step before and after every commit."""

    def __init__(self, engine: MigratableEngine, wire: Tripwire) -> None:
        self.engine = engine
        self.wire = wire

    @property
    def dialect(self) -> Dialect:
        return self.engine.dialect

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        if self.wire.is_dead:
            raise Crash("the database")
        async with self.engine.transaction() as tx:
            yield tx
            self.wire.step("before commit")
        self.wire.step("after commit")

    async def close(self) -> None:
        await self.engine.close()


class Stepping:
    """A port whose methods, or the named ones, are steps: one before the call, one after it."""

    def __init__(self, inner: Any, name: str, wire: Tripwire, methods: tuple[str, ...]) -> None:
        self._inner, self._name, self._wire, self._methods = inner, name, wire, methods

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._inner, attribute)
        if not callable(value) or (self._methods and attribute not in self._methods):
            return value
        return self._stepping(f"{self._name} {attribute}", value)

    def _stepping(
        self, what: str, call: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        async def stepped(*args: Any, **kwargs: Any) -> Any:
            self._wire.step(f"before {what}")
            answer = await call(*args, **kwargs)
            self._wire.step(f"after {what}")
            return answer

        return stepped
