"""The sandbox's own routes under /sandbox: clock, state, faults, webhooks, cards, settings."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from bot.sandbox.stripe import card_payments, disputes, faults, payment_methods, portal
from bot.sandbox.stripe.errors import Obj, invalid, missing
from bot.sandbox.stripe.world import view

if TYPE_CHECKING:
    from bot.sandbox.stripe.server import EmbeddedStripe

MAX_ADVANCE_S = 20 * 366 * 86400  # twenty years of renewals is a typing error


async def handle(stripe: EmbeddedStripe, method: str, path: str, raw: bytes) -> Obj:
    """One control call; bodies and answers are JSON. Errors: `StripeError` 400, 404."""
    body = _json(raw)
    match method, path.removeprefix("/sandbox/").strip("/").split("/"):
        case "GET", ["clock"]:
            return stripe.schedule.state()
        case "POST", ["clock"]:
            return await _advance(stripe, body)
        case "GET", ["state"]:
            return _state(stripe)
        case "POST", ["faults"]:
            options = faults.from_json(body)
            stripe.faults.add(**options)
            return {"faults": [asdict(r) for r in stripe.faults.rules]}
        case "DELETE", ["faults"]:
            stripe.faults.clear()
            return {"faults": []}
        case "POST", ["webhooks"]:
            return _webhooks(stripe, body)
        case "POST", ["webhooks", "resend"]:
            return {"sent": stripe.delivery.resend(str(body.get("event")))}
        case "POST", ["settings"]:
            return _settings(stripe, body)
        case "POST", ["pages", session_id]:
            left = portal.complete(stripe.world, session_id, str(body.get("card", "visa")))
            return {"payment_method": left["id"]}
        case "POST", ["cards", card_id]:
            return _card(stripe, card_id, body)
        case "POST", ["payment_intents" | "disputes" as kind, thing_id, *rest]:
            return _card_payment(stripe, kind, thing_id, rest, body)
        case _:
            raise missing("sandbox route", f"{method} {path}", "path")


def _card_payment(
    stripe: EmbeddedStripe, kind: str, thing_id: str, rest: list[str], body: Obj
) -> Obj:
    """The end of a payment in progress; a dispute of a paid one, and its end."""
    if kind == "disputes":
        dispute = stripe.world.get("dispute", thing_id)
        disputes.close_dispute(stripe.world, dispute, str(body.get("status")))
        return {"status": dispute["status"]}
    intent = stripe.world.get("payment_intent", thing_id)
    if rest == ["dispute"]:
        return {"id": disputes.open_dispute(stripe.world, intent)["id"]}
    if body.get("outcome") not in ("succeed", "fail"):
        raise invalid("outcome must be succeed or fail", param="outcome")
    card_payments.resolve(stripe.world, intent, succeed=body["outcome"] == "succeed")
    return {"status": intent["status"]}


def _json(raw: bytes) -> Obj:
    if not raw:
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise invalid("The body must be JSON.") from None
    if not isinstance(body, dict):
        raise invalid("The body must be a JSON object.")
    return body


async def _advance(stripe: EmbeddedStripe, body: Obj) -> Obj:
    for name in body:
        if name not in ("advance_to", "advance_s", "stop_at_due", "settle_s"):
            raise invalid(f"Unknown option: {name[:40]}", param=name[:40])
    now = stripe.world.now()
    to, by = body.get("advance_to"), body.get("advance_s")
    if isinstance(to, bool) or isinstance(by, bool) or (to is None) == (by is None):
        raise invalid("Give exactly one of advance_to and advance_s.", param="advance_to")
    wanted = to if by is None else by
    if not isinstance(wanted, int):
        raise invalid("Seconds are integers.", param="advance_to" if by is None else "advance_s")
    target = wanted if by is None else now + wanted
    if not now <= target <= now + MAX_ADVANCE_S:
        raise invalid("Time only moves forward, by twenty years at most.", param="advance_to")
    settle = body.get("settle_s", 0)
    if not isinstance(settle, int | float) or not 0 <= settle <= 60:
        raise invalid("settle_s is 0 to 60 seconds.", param="settle_s")
    return await stripe.schedule.advance(
        target, stop_at_due=body.get("stop_at_due") is True, settle_s=float(settle)
    )


def _state(stripe: EmbeddedStripe) -> Obj:
    world = stripe.world
    undelivered = sum(1 for e in world.table("event").values() if e["pending_webhooks"])
    statuses = Counter(i["status"] for i in world.table("invoice").values())
    return stripe.schedule.state() | {
        "counts": {kind: len(table) for kind, table in sorted(world.tables.items())},
        "invoices": dict(statuses),
        "subscriptions": dict(Counter(s["status"] for s in world.table("subscription").values())),
        "events_undelivered": undelivered,
        "webhook_attempts": len(stripe.delivery.attempts),
        "faults": [asdict(r) for r in stripe.faults.rules if r.times > 0],
        "settings": asdict(world.settings),
    }


def _webhooks(stripe: EmbeddedStripe, body: Obj) -> Obj:
    bad = stripe.delivery.misbehaviour
    kinds: dict[str, type | tuple[type, ...]] = {
        "duplicate": int,
        "drop": int,
        "reorder": int,
        "delay_s": (int, float),
        "paused": bool,
        "types": list,
    }
    for name, value in body.items():
        if name not in kinds or not isinstance(value, kinds[name]):
            raise invalid(f"Unknown or invalid option: {name[:40]}", param=name[:40])
    for name, value in body.items():
        setattr(bad, name, tuple(value) if name == "types" else value)
    if body.get("paused") is False:
        stripe.delivery.release()
    return asdict(bad)


def _settings(stripe: EmbeddedStripe, body: Obj) -> Obj:
    settings = stripe.world.settings
    names = {f.name for f in fields(settings)}
    for name, value in body.items():
        current: Any = getattr(settings, name) if name in names else None
        value = tuple(value) if isinstance(value, list) else value
        if type(value) is not type(current):
            raise invalid(f"Unknown or invalid setting: {name[:40]}", param=name[:40])
        if name == "after_last_retry" and value not in ("cancel", "unpaid", "past_due"):
            raise invalid("after_last_retry is cancel, unpaid or past_due", param=name)
    for name, value in body.items():
        setattr(settings, name, tuple(value) if isinstance(value, list) else value)
    return asdict(settings)


def _card(stripe: EmbeddedStripe, card_id: str, body: Obj) -> Obj:
    """How it behaves from now on, and until when it is valid."""
    method = stripe.world.get("payment_method", card_id)
    behaviour = body.get("behaviour", method["_behaviour"])
    if behaviour not in payment_methods.BEHAVIOURS:
        raise invalid(
            f"behaviour is one of {', '.join(payment_methods.BEHAVIOURS)}", param="behaviour"
        )
    month, year = (body.get(name, method["card"][name]) for name in ("exp_month", "exp_year"))
    if not (isinstance(month, int) and isinstance(year, int) and 1 <= month <= 12):
        raise invalid("exp_month is 1 to 12, exp_year a year", param="exp_month")
    method["_behaviour"] = behaviour
    before = view(stripe.world, method)
    method["card"] |= {"exp_month": month, "exp_year": year}
    stripe.world.emit_change("payment_method.updated", method, before)
    return {"id": card_id, "behaviour": behaviour, "exp_month": month, "exp_year": year}
