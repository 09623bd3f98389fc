"""Renders the payment state machine and the table of wallet answers for docs/payments.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from billing.payments import ATTEMPT_TABLE, REQUEST_TABLE
from wallet.outcome import LEGACY_SPELLINGS, REFUSALS


def diagram(table: Mapping[tuple[Any, Any], Any], start: str) -> str:
    """A Mermaid state diagram; observations that change no state are left to the table."""
    labels: dict[tuple[str, str], list[str]] = {}
    for (state, seen), row in table.items():
        if row.state is not state:
            labels.setdefault((state.value, row.state.value), []).append(seen.value)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {start}"]
    lines += [
        f"    {old} --> {new}: {', '.join(sorted(seen))}"
        for (old, new), seen in sorted(labels.items())
    ]
    return "\n".join([*lines, "```"])


def effects_table(table: Mapping[tuple[Any, Any], Any]) -> str:
    """Every listed pair, with the next state and the effects of the same transaction."""
    rows = [
        (s.value, seen.value, row.state.value, ", ".join(e.value for e in row.effects) or "none")
        for (s, seen), row in table.items()
    ]
    return _table(("state", "observed", "then", "effects"), sorted(rows))


def answers_table() -> str:
    """What each answer to `pay_invoice` proves (M5)."""
    rows = [
        (
            f"`{code}`",
            "refused" if rule.final_if_resent else "refused, if it was sent once",
            rule.reason,
        )
        for code, rule in sorted(REFUSALS.items())
    ]
    rows += [
        (f"`{old}`", f"as `{new}`", "an older spelling")
        for old, new in sorted(LEGACY_SPELLINGS.items())
    ]
    rows += [
        ("success with the preimage", "claimed", "our own wallet is asked at once (M6)"),
        ("success without a valid preimage", "nothing", "wallets answer so while in transit"),
        ("`PAYMENT_FAILED`, `INTERNAL`, any other code", "nothing", "seen for paid ones too"),
        ("silence, a lost socket", "nothing", "the answer may come hours later"),
    ]
    return _table(("the wallet answers", "proves", "because"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def sections() -> dict[str, str]:
    """Marker → generated text, as docs/payments.md holds them."""
    return {
        "requests": diagram(REQUEST_TABLE, "open"),
        "attempts": diagram(ATTEMPT_TABLE, "prepared"),
        "request-table": effects_table(REQUEST_TABLE),
        "attempt-table": effects_table(ATTEMPT_TABLE),
        "answers": answers_table(),
    }
