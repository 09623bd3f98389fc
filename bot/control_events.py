"""`purser events replay` where the accounts are: recorded events go to their handlers again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from billing.model import InboxEvent
from billing.unit import Runtime
from bot.control import ControlRefused, Json

MAX_NAMED = 100
"""More than that is a time, not a list."""


@dataclass(slots=True)
class EventControl:
    """Only marks them due: the worker that has always handled them does it (M14, K3)."""

    rt: Runtime

    async def replay(
        self, event_ids: Sequence[str], *, since: int | None, only_failed: bool
    ) -> Json:
        """Those named, or all received since then. {events: how many}."""
        if bool(event_ids) == (since is not None) or len(event_ids) > MAX_NAMED:
            raise ControlRefused(f"name up to {MAX_NAMED} events, or a time with --since")
        async with self.rt.unit() as unit:
            for event_id in event_ids:
                known = await unit.tx.fetch_one(InboxEvent, "events.get", event_id=event_id)
                if known is None:
                    raise ControlRefused(
                        f"there is no event {event_id} here: see purser events; what Stripe still "
                        "lists is fetched by purser reconcile"
                    )
                if only_failed and known.state != "failed":
                    raise ControlRefused(f"{event_id} has not failed, it is {known.state}")
                await unit.tx.execute("events.replay", event_id=event_id, now=unit.now)
                await unit.record("operator.replay", subject=event_id, was=known.state)
            count = len(event_ids)
            if since is not None:
                count = await unit.tx.execute(
                    "events.replay_since",
                    since=since,
                    only_failed=int(only_failed),
                    now=unit.now,
                )
                await unit.record(
                    "operator.replay", since=since, only_failed=only_failed, events=count
                )
        return {"events": count}
