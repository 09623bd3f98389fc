"""Reads what wallets answer over NIP-47: tolerant of dialects, never raising, believing little.

Every function takes decrypted text or JSON from a stranger and returns a value; nothing raises.
Both error bodies (`{"code"}` of the specification, `{"type"}` of some services), missing
`result_type`, missing or null optional fields, and whole numbers written as floats or digits are
understood. Source: NIP-47 and the wallets listed in the project's facts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, cast

from wallet.bolt11 import Bolt11Error, decode
from wallet.outcome import PayOutcome, Settled, Unknown, clean_text, outcome_of_error
from wallet.ports import Budget, Encryption, Transaction, Unreachable, WalletError, WalletInfo

MAX_ANSWER_CHARS: Final = 262_144
"""Longer texts are not parsed: relays of ours take no larger event."""
MAX_WHOLE: Final = 2**63 - 1
MAX_CODE_CHARS: Final = 40
MAX_NAMES: Final = 64
"""Method or notification names kept of one answer."""
MAX_TRANSACTIONS: Final = 1_000
"""Of one page; an answer that fits into an event holds some hundred."""

NOT_FOUND_CODES: Final = frozenset(
    {"NOT_FOUND", "NOTFOUND", "INVOICE_NOT_FOUND", "PAYMENT_NOT_FOUND", "TRANSACTION_NOT_FOUND"}
)
"""Codes that say "no such hash". INTERNAL with such words in its message is not among them: it is
also what a wallet says whose database is away."""
KNOWN_STATES: Final = frozenset({"pending", "accepted", "settled", "expired", "failed"})
"""Of NIP-47 and its hold invoices."""

_HEX64: Final = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that could be read. `error` and `result` may both be there, or neither."""

    result_type: str | None
    error: WalletError | None
    result: Mapping[str, Any] | None = field(repr=False)


ReadAnswer: TypeAlias = Answer | Unreachable


def load_object(text: str) -> Mapping[str, Any] | None:
    """The JSON object in the text; None for anything else, however hostile."""
    if len(text) > MAX_ANSWER_CHARS:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def parse_answer(content: str) -> ReadAnswer:
    """The decrypted content of a kind 23195 event."""
    body = load_object(content)
    if body is None:
        return Unreachable("the wallet's answer cannot be read")
    result = body.get("result")
    error = _error(body.get("error"))
    result_type = _text(body.get("result_type"))
    if error is None and not isinstance(result, dict):
        return Unreachable("the wallet's answer holds neither a result nor an error")
    return Answer(result_type, error, result if isinstance(result, dict) else None)


def _error(value: object) -> WalletError | None:
    """Both shapes, or a bare string. An empty object or string is no error."""
    if isinstance(value, dict) and value:
        code = _text(value.get("code")) or _text(value.get("type")) or "NO_CODE"
        return WalletError(normal_code(code), clean_text(_text(value.get("message")) or ""))
    if isinstance(value, str) and value.strip():
        return WalletError("NO_CODE", clean_text(value))
    if value is None or isinstance(value, dict | str) or value is False:
        return None
    return WalletError("NO_CODE", "")


def normal_code(code: str) -> str:
    """`not-found ` and `NOT_FOUND` are one code; at most 40 characters, upper case."""
    folded = re.sub(r"[\s-]+", "_", clean_text(code)).upper()
    return folded[:MAX_CODE_CHARS] or "NO_CODE"


def is_not_found(error: WalletError) -> bool:
    """True only where the code itself says so."""
    return error.code in NOT_FOUND_CODES


def outcome_of_reply(content: str, payment_hash: str | None, *, resent: bool) -> PayOutcome:
    """What an answer to `pay_invoice` proves (M5). A preimage that hashes to `payment_hash` (64
    hex) is the only proof of payment; `resent`: the same event was written more than once."""
    answer = parse_answer(content)
    if isinstance(answer, Unreachable):
        return Unknown("UNREADABLE", answer.reason)
    if answer.result is not None:
        preimage = hex64(answer.result.get("preimage"))
        if preimage is not None and payment_hash is not None and _opens(preimage, payment_hash):
            return Settled(preimage, whole(answer.result.get("fees_paid")))
    if answer.error is not None:
        return outcome_of_error(answer.error.code, answer.error.message, resent=resent)
    return Unknown("NO_PROOF", "the wallet says paid and gives no valid preimage")


def _opens(preimage: str, payment_hash: str) -> bool:
    return hashlib.sha256(bytes.fromhex(preimage)).hexdigest() == payment_hash.lower()


def parse_info(result: Mapping[str, Any], encryption: Encryption) -> WalletInfo:
    """Answer of `get_info`; every field may be missing."""
    return WalletInfo(
        methods=names(result.get("methods")),
        notifications=names(result.get("notifications")),
        network=_short(result.get("network")),
        alias=_short(result.get("alias")),
        pubkey=_short(result.get("pubkey")),
        encryption=encryption,
    )


def parse_balance(result: Mapping[str, Any]) -> int | Unreachable:
    """Answer of `get_balance`, msat."""
    balance = whole(result.get("balance"))
    return Unreachable("the wallet told no balance") if balance is None else balance


def parse_budget(result: Mapping[str, Any]) -> Budget | Unreachable | None:
    """Answer of `get_budget`; None for `{}`: no budget is set."""
    if not result or result.get("total_budget") is None:
        return None
    used, total = whole(result.get("used_budget")), whole(result.get("total_budget"))
    if total is None:
        return Unreachable("the wallet told no readable budget")
    return Budget(used or 0, total, _time(result.get("renews_at")))


def parse_transaction(value: object, asked_hash: str | None = None) -> Transaction | Unreachable:
    """A NIP-47 transaction. `asked_hash` stands in for a payment hash left out of a look-up.

    Left-out fields become None; one that is there and has no readable value makes the whole
    unreadable where money is decided by it (hash, amount, state).
    """
    if not isinstance(value, dict):
        return Unreachable("the wallet's transaction cannot be read")
    bolt11 = value.get("invoice") if isinstance(value.get("invoice"), str) else None
    told = value.get("payment_hash")
    # A hash that is there and is none must not be replaced by the one we hoped for.
    payment_hash = hex64(told) if told else _hash_of(bolt11) or asked_hash
    if payment_hash is None:
        return Unreachable("the wallet's transaction has no payment hash")
    amount_msat, state = whole(value.get("amount")), value.get("state")
    if amount_msat is None and value.get("amount") is not None:
        return Unreachable("the wallet's transaction has an unreadable amount")
    if state is not None and not isinstance(state, str):
        return Unreachable("the wallet's transaction has an unreadable state")
    return Transaction(
        payment_hash=payment_hash,
        direction=_direction(value.get("type")),
        state=clean_text(state).lower()[:MAX_CODE_CHARS] or None if state else None,
        amount_msat=amount_msat,
        settled_at=_time(value.get("settled_at")),
        created_at=_time(value.get("created_at")),
        expires_at=_time(value.get("expires_at")),
        preimage=hex64(value.get("preimage")),
        bolt11=bolt11,
    )


def parse_transactions(result: Mapping[str, Any]) -> list[Transaction] | Unreachable:
    """Answer of `list_transactions`; entries that cannot be read are left out."""
    entries = result.get("transactions")
    if not isinstance(entries, list):
        return Unreachable("the wallet listed no transactions")
    read = (parse_transaction(entry) for entry in entries[:MAX_TRANSACTIONS])
    return [transaction for transaction in read if isinstance(transaction, Transaction)]


def parse_notification(content: str) -> tuple[str, Transaction] | None:
    """The type and transaction of a kind 23196 or 23197 event; None when it is neither."""
    body = load_object(content)
    kind = None if body is None else _text(body.get("notification_type"))
    if body is None or kind is None:
        return None
    transaction = parse_transaction(body.get("notification"))
    return (kind, transaction) if isinstance(transaction, Transaction) else None


def evidence(transaction: Transaction, payment_hash: str) -> Transaction | Unreachable:
    """A look-up in our own wallet, if billing may decide by it in either direction (M6).

    Whatever contradicts itself or says something unknown is no answer: it neither settles a
    request nor counts towards its death.
    """
    if transaction.payment_hash != payment_hash:
        return Unreachable("the wallet told of another payment hash")
    if transaction.direction is None:
        return Unreachable("the wallet does not say whether the transaction is incoming")
    if transaction.state is not None and transaction.state not in KNOWN_STATES:
        return Unreachable("the wallet told an unknown state")
    is_settled = transaction.state in (None, "settled")
    if not is_settled and transaction.direction == "incoming" and transaction.settled_at:
        return Unreachable("the wallet told a time of settlement and another state")
    return transaction


def names(value: object) -> frozenset[str]:
    """A list of names, or one string of them with spaces (info events)."""
    items = value.split() if isinstance(value, str) else value
    if not isinstance(items, list | tuple | set | frozenset):
        return frozenset()
    short = (_short(item) for item in list(items)[:MAX_NAMES])
    return frozenset(name for name in short if name)


def whole(value: object) -> int | None:
    """A whole number in [0, 2^63): an int, a float without a fraction, or digits."""
    if isinstance(value, bool):
        return None
    is_whole_float = isinstance(value, float) and value.is_integer()
    is_digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
    if is_whole_float or is_digits:
        value = int(cast(float | str, value))
    return value if isinstance(value, int) and 0 <= value <= MAX_WHOLE else None


def hex64(value: object) -> str | None:
    """32 bytes in hex, lower case."""
    return value.lower() if isinstance(value, str) and _HEX64.fullmatch(value) else None


def _hash_of(bolt11: str | None) -> str | None:
    try:
        return None if bolt11 is None else decode(bolt11).payment_hash
    except Bolt11Error:
        return None


def _direction(value: object) -> Literal["incoming", "outgoing"] | None:
    told = value.strip().lower() if isinstance(value, str) else None
    if told in ("incoming", "outgoing"):
        return cast(Literal["incoming", "outgoing"], told)
    return None


def _time(value: object) -> int | None:
    """Epoch seconds; 0 means "not yet" with some wallets."""
    return whole(value) or None


def _text(value: object) -> str | None:
    """A string, or a number some services use for a code."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)[:MAX_CODE_CHARS]
    return None


def _short(value: object) -> str | None:
    return (clean_text(value) or None) if isinstance(value, str) else None
