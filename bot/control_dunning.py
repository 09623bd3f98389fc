"""`purser dunning pause|resume|proceed` where the accounts are: the operator's word."""

from __future__ import annotations

from dataclasses import dataclass

from billing.dunning import DAY_S, Window
from billing.mass_failure import TRUST_S, resume_all
from billing.promises import pause, resume
from billing.store import dunning
from billing.unit import Runtime, Unit
from bot.control import ControlRefused, Json
from bot.logs import redact

MAX_REASON_CHARS = 240
"""One line of the audit log."""
MAX_PAUSE_DAYS = 366
"""More is no pause: void the invoice instead."""


@dataclass(slots=True)
class DunningControl:
    """Every change is one audited transaction; the worker acts on it."""

    rt: Runtime

    async def change(self, what: str, invoice: str | None, days: int | None, reason: str) -> Json:
        """pause (some days), resume (one, or all after a mass failure), proceed (as if the last
        message had been delivered). Raises `ControlRefused` with what stands against it."""
        text = redact(" ".join(reason.split()))[:MAX_REASON_CHARS]
        if not text:
            raise ControlRefused("a reason is needed: it goes into the audit log")
        async with self.rt.unit() as unit:
            if invoice is None:
                if what != "resume":
                    raise ControlRefused("name an invoice: see purser dunning")
                return await self._resume_all(unit, text)
            window = await _window(unit, invoice)
            match what:
                case "pause":
                    done = await self._pause(unit, window, days)
                case "resume":
                    done = await self._resume(unit, window)
                case "proceed":
                    done = await self._proceed(unit, window)
                case _:
                    raise ControlRefused("say pause, resume or proceed")
            await unit.record(
                f"operator.dunning_{what}",
                tenant=window.tenant,
                subject=invoice,
                days=days,
                reason=text,
            )
        return {"invoice": invoice, "done": what} | done

    async def _resume_all(self, unit: Unit, reason: str) -> Json:
        clock = await dunning.clock(unit.tx)
        if clock.paused_at is None:
            raise ControlRefused("nothing is paused for all; name an invoice to resume one")
        again = await resume_all(unit, trust_s=TRUST_S)
        await unit.record("operator.dunning_resume_all", reason=reason)
        return {"done": "resume", "tenants_tried_anew": len(again)}

    async def _pause(self, unit: Unit, window: Window, days: int | None) -> Json:
        if days is None or not 1 <= days <= MAX_PAUSE_DAYS:
            raise ControlRefused(f"say --days, 1 to {MAX_PAUSE_DAYS}")
        await pause(unit, window, await dunning.clock(unit.tx), days * DAY_S)
        return {"days": days}

    async def _resume(self, unit: Unit, window: Window) -> Json:
        if window.pause_clock is None:
            raise ControlRefused(f"{window.invoice_id} is not paused")
        await resume(unit, window, await dunning.clock(unit.tx))
        return {}

    async def _proceed(self, unit: Unit, window: Window) -> Json:
        clock = await dunning.clock(unit.tx)
        told = await unit.tx.execute(
            "dunning.told",
            invoice_id=window.invoice_id,
            billing_now=unit.billing_now,
            elapsed_s=clock.elapsed_s,
            now=unit.now,
        )
        if not told:
            raise ControlRefused(f"the last message about {window.invoice_id} was delivered")
        return {"counts_as_told": window.message_key}


async def _window(unit: Unit, invoice: str) -> Window:
    window = await dunning.get(unit.tx, invoice)
    if window is None:
        raise ControlRefused(f"invoice {invoice} is not dunned: see purser dunning")
    if window.closed_at is not None:
        raise ControlRefused(f"dunning of {invoice} is over: {window.outcome}")
    return window
