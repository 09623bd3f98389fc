"""Renders the payment state machine and the table of wallet answers for docs/payments.md."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from billing.model import Purpose
from billing.payer_lookups import ASK_AFTER_S, read_payer_lookup
from billing.payments import (
    ATTEMPT_TABLE,
    AUTOMATIC_EXPIRY_S,
    DEATH_GAP_S,
    MARGIN_S,
    REQUEST_TABLE,
    after_request,
    next_lookup,
    read_lookup,
)
from billing.store.payments import new_request
from wallet.outcome import LEGACY_SPELLINGS, REFUSALS, Settled
from wallet.ports import LookupAnswer, NotFound, Transaction, Unreachable, WalletError

_REQUEST = new_request(
    request_id="req",
    invoice_id="in",
    tenant="",
    payee_connection_id="conn",
    purpose=Purpose.AUTOMATIC,
    payment_hash="",
    bolt11="",
    amount_msat=1,
    amount_minor=1,
    currency="usd",
    rate="1",
    rate_sources="[]",
    rate_at=0,
    now=0,
    expires_at=AUTOMATIC_EXPIRY_S,
    margin_s=0,
)
_UNPAID = Transaction("", "incoming", "pending", 1, None, 0, AUTOMATIC_EXPIRY_S)


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
        (f"`{code}`", "refused, if it was sent once", reason)
        for code, reason in sorted(REFUSALS.items())
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


_HASH, _OTHER_HASH = "ab" * 32, "cd" * 32
_PREIMAGE = "00" * 32
_PROVEN_HASH = hashlib.sha256(bytes(32)).hexdigest()


def _told(direction: Any, state: str | None, preimage: str | None = None) -> Transaction:
    payment_hash = _PROVEN_HASH if preimage else _HASH
    return Transaction(payment_hash, direction, state, 1, None, 0, 1, preimage)


PAYER_ANSWERS: list[tuple[str, LookupAnswer, str]] = [
    (
        "outgoing, settled, with the preimage",
        _told("outgoing", "settled", _PREIMAGE),
        "as a success with the preimage: our own wallet is asked at once (M6)",
    ),
    (
        "outgoing, settled, without a valid preimage",
        _told("outgoing", "settled"),
        "some show failed ones so; our own wallet is asked at once",
    ),
    (
        "outgoing, settled by its time only (no state), with the preimage",
        replace(_told("outgoing", None, _PREIMAGE), settled_at=1),
        "a state is optional",
    ),
    (
        "outgoing, `pending`, `failed` or any other state",
        _told("outgoing", "failed", _PREIMAGE),
        "said of paid ones too",
    ),
    (
        "incoming, or of no direction",
        _told("incoming", "settled", _PREIMAGE),
        "one service may hold both wallets, and show the preimage of what nobody paid",
    ),
    ("another payment hash", _told("outgoing", "settled"), "it speaks of something else"),
    ("`NOT_FOUND`", NotFound(), "wallets forget, and list late"),
    ("any error", WalletError("INTERNAL", ""), "a revoked connection knows nothing either"),
    ("silence", Unreachable(""), "a phone sleeps"),
]


def payer_answers_table() -> str:
    """What each answer of the payer's `lookup_invoice` proves, by the reader itself."""
    rows = []
    for name, answer, why in PAYER_ANSWERS:
        is_it = isinstance(answer, Transaction) and name != "another payment hash"
        outcome = read_payer_lookup(answer.payment_hash if is_it else _OTHER_HASH, answer)
        rows.append((name, "claimed" if isinstance(outcome, Settled) else "nothing", why))
    return _table(("asked, the payer's wallet says", "proves", "because"), rows)


def payer_schedule_table() -> str:
    """When the payer's wallet is asked about an attempt in flight."""
    rows = [(f"{_span(after_s)} after it went out",) for after_s in ASK_AFTER_S]
    return _table(("the payer's wallet is asked",), [*rows, ("at expiry plus margin",)])


def looks(margin_s: int) -> list[int]:
    """Seconds after its issue at which our wallet is asked about an unpaid automatic request, by
    the decider itself; the last one is the end of the watch."""
    request = replace(_REQUEST, margin_s=margin_s)
    assert request.next_lookup_at is not None
    now, found = request.next_lookup_at, [0]
    while True:
        found.append(now)
        reading = read_lookup(request, _UNPAID, now=now, people_only=False, control_found=False)
        at = next_lookup(request, reading, now=now)
        request = replace(
            request,
            state=after_request(request.state, reading.seen).state,
            lookups=request.lookups + 1,
            last_lookup_at=now,
            unpaid_since=reading.unpaid_since,
            unpaid_lookups=reading.unpaid_lookups,
        )
        if at is None:
            return found
        now = at


def schedule_table() -> str:
    """Runs of equal gaps, until the watch ends."""
    at = looks(MARGIN_S["lnd"])
    rows, start = [], 0
    for index in range(1, len(at)):
        gap = at[index] - at[index - 1]
        last = index + 1 == len(at)
        if last or at[index + 1] - at[index] != gap:
            rows.append((_span(at[start]), _span(at[index]), _span(gap), _why(at[index])))
            start = index
    return _table(("from", "until", "every", ""), rows)


def _why(until_s: int) -> str:
    dies_s = AUTOMATIC_EXPIRY_S + MARGIN_S["lnd"]
    if until_s <= AUTOMATIC_EXPIRY_S:
        return "it may be paid any moment"
    if until_s <= dies_s:
        return "expired; our wallet may still take it"
    if until_s <= dies_s + DEATH_GAP_S:
        return "the second look: dead (M2)"
    return "late money has a home (M9)"


def _span(seconds: int) -> str:
    parts = []
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:3]) or "0 s"


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
        "payer-answers": payer_answers_table(),
        "payer-schedule": payer_schedule_table(),
        "schedule": schedule_table(),
    }
