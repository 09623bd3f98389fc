"""Renders the timeline, what it does to relays and what it waits for, for docs/dunning.md."""

from __future__ import annotations

from billing import dunning
from billing.dunning import DEFAULT_STEPS, MOVES, RESTORED, Action
from billing.model import RelayState

WHAT = {
    Action.NOTICE: "the renewal is told, in fiat and sats, with how it will be paid",
    Action.DUE: "it is owed; what comes, when, and how to pay",
    Action.REMIND: "the same again; on those days a wallet that did not pay is asked again, too",
    Action.LIMIT: "its relays are limited",
    Action.STOP: "its relays are stopped; nothing is deleted",
    Action.END: "its relays end, and what is owed is written off; a subscription of which nothing"
    " is left is cancelled",
}


def timeline() -> str:
    """The steps as they are without configuration."""
    rows = ["| day | step | what happens |", "| --- | --- | --- |"]
    for step in DEFAULT_STEPS:
        day = f"T{step.day:+d}".replace("-", "−") if step.day else "T"
        rows.append(f"| {day} | `{step.action.value}` | {WHAT[step.action]} |")
    return "\n".join(rows)


def relay_states() -> str:
    """A Mermaid diagram of what dunning does to a relay."""
    edges: dict[tuple[str, str], list[str]] = {}
    for action, (before, after) in MOVES.items():
        for state in before:
            edges.setdefault((state.value, after.value), []).append(action.value)
    for state in RESTORED:
        edges[state.value, RelayState.ACTIVE.value] = ["paid, or voided by the operator"]
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> active: its invoice was paid"]
    lines += [f"    {old} --> {new}: {', '.join(why)}" for (old, new), why in sorted(edges.items())]
    return "\n".join([*lines, "```"])


def waits() -> str:
    """The decider's own table."""
    rows = [row for row in (dunning.__doc__ or "").splitlines() if row.startswith("|")]
    assert len(rows) > 10
    return "\n".join(rows)


def sections() -> dict[str, str]:
    """Marker → generated text."""
    return {"timeline": timeline(), "relay-states": relay_states(), "waits": waits()}
