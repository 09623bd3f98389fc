"""The bot with named places to die at: `python -m tests.e2e.fault_points run --config …`.

A test writes the name of one place into the file that KILL_AT names, whenever it likes; the process
kills itself (SIGKILL) the next time it passes there, and leaves the name in KILL_AT + ".struck".
Commits are named by the audit line in them, calls by port and method. Nothing in the product knows
of this: it is laid around its classes from here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from billing.ingest import Ingest
from billing.stripe_gateway import StripeSdkGateway
from billing.unit import Runtime, Unit
from bot.dm.outbound import Outbound
from bot.relayhost.zooid import ZooidHost
from wallet.nwc import NwcPayee, NwcPayer

CALLS: dict[str, tuple[type, tuple[str, ...]]] = {
    "stripe": (
        StripeSdkGateway,
        (
            "create_customer",
            "create_subscription",
            "update_items",
            "create_pending_invoice",
            "annotate_invoice",
            "pay_out_of_band",
            "pay_by_card",
        ),
    ),
    "payee": (NwcPayee, ("make_invoice", "lookup_invoice")),
    "payer": (NwcPayer, ("publish_pay",)),
    "relay host": (ZooidHost, ("apply",)),
    "webhook": (Ingest, ("submit",)),
}


def _strike(place: str) -> None:
    wanted = Path(os.environ["KILL_AT"])
    try:
        named = wanted.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    if named == place:
        # Renamed, not written: a reader never sees half of it.
        wanted.rename(wanted.with_suffix(".struck"))
        os.kill(os.getpid(), signal.SIGKILL)


def _around(owner: type, method: str, name: str) -> None:
    call: Callable[..., Any] = getattr(owner, method)

    async def passed(*args: Any, **kwargs: Any) -> Any:
        _strike(f"before {name}")
        answer = await call(*args, **kwargs)
        _strike(f"after {name}")
        return answer

    setattr(owner, method, passed)


def _around_messages() -> None:
    """Messages are named by their kind."""
    deliver = Outbound.deliver

    async def passed(self: Outbound, key: str, to: str, kind: str, facts: Any) -> Any:
        answer = await deliver(self, key, to, kind, facts)
        _strike(f"after telling {kind}")
        return answer

    Outbound.deliver = passed  # type: ignore[method-assign]


def install() -> None:
    """Lay the places around every port and every transaction."""
    for port, (owner, methods) in CALLS.items():
        for method in methods:
            _around(owner, method, f"{port} {method}")
    _around_messages()
    unit = Runtime.unit

    @asynccontextmanager
    async def passed(self: Runtime) -> AsyncIterator[Unit]:
        async with unit(self) as made:
            yield made
            for line in made.lines:
                _strike(f"before commit of {line.kind}")
        for line in made.lines:
            _strike(f"after commit of {line.kind}")

    Runtime.unit = passed  # type: ignore[method-assign]


if __name__ == "__main__":
    install()
    from bot.cli.main import main

    main()
