"""Answers of wallets, in every dialect seen, and in none."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wallet.nwc_codec import (
    Answer,
    evidence,
    is_not_found,
    names,
    normal_code,
    outcome_of_reply,
    parse_answer,
    parse_balance,
    parse_budget,
    parse_info,
    parse_notification,
    parse_transaction,
    parse_transactions,
    whole,
)
from wallet.outcome import REFUSALS, Refused, Settled, Unknown
from wallet.ports import Budget, Transaction, Unreachable, WalletError

PREIMAGE = "11" * 32
HASH = hashlib.sha256(bytes.fromhex(PREIMAGE)).hexdigest()

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([HASH, PREIMAGE, "incoming", "settled", 0, -1, 2**64, 1e300, "\ud800"])
)
keys = st.sampled_from(
    [
        *("result", "error", "result_type", "code", "type", "message", "preimage", "fees_paid"),
        *("payment_hash", "amount", "state", "settled_at", "created_at", "invoice", "balance"),
        *("transactions", "notification", "notification_type", "methods", "total_budget"),
    ]
)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner), max_leaves=12
)
objects = st.dictionaries(keys, anything)


def answer(body: object) -> Answer:
    read = parse_answer(json.dumps(body))
    assert isinstance(read, Answer)
    return read


# --- nothing raises -------------------------------------------------------------------------------


@settings(max_examples=250, deadline=None)
@given(st.text(max_size=300) | objects.map(json.dumps))
def test_no_text_raises(text: str) -> None:
    parse_answer(text)
    parse_notification(text)
    assert not isinstance(outcome_of_reply(text, "00" * 32, resent=False), Settled)


@settings(max_examples=250, deadline=None)
@given(objects)
def test_no_json_raises(value: dict[str, Any]) -> None:
    parse_info(value, "nip44_v2")
    parse_balance(value)
    parse_budget(value)
    parse_transactions(value)
    told = parse_transaction(value, HASH)
    if isinstance(told, Transaction):
        assert len(told.payment_hash) == 64
        assert told.amount_msat is None or 0 <= told.amount_msat < 2**63
        evidence(told, HASH)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '"paid"',
        "<html>502 Bad Gateway</html>",
        "[" * 100_000,
        '{"result":' * 50_000,
        '{"result": {"preimage": ' + "9" * 5_000 + "}}",
        '{"result": null, "error": null}',
        '{"result": [1], "error": {}}',
        "{" + " " * 300_000 + "}",
    ],
)
def test_what_is_no_answer_proves_nothing(text: str) -> None:
    assert isinstance(parse_answer(text), Unreachable)
    outcome = outcome_of_reply(text, HASH, resent=False)
    assert isinstance(outcome, Unknown)
    assert outcome.code == "UNREADABLE"


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "NOT_FOUND", "message": "gone"}, WalletError("NOT_FOUND", "gone")),
        ({"type": "INTERNAL", "message": "gone"}, WalletError("INTERNAL", "gone")),
        ({"code": None, "type": "OTHER"}, WalletError("OTHER", "")),
        ({"message": "what"}, WalletError("NO_CODE", "what")),
        ({"code": 404}, WalletError("404", "")),
        ({"code": " insufficient-balance "}, WalletError("INSUFFICIENT_BALANCE", "")),
        ("failed", WalletError("NO_CODE", "failed")),
        (7, WalletError("NO_CODE", "")),
        (["x"], WalletError("NO_CODE", "")),
    ],
)
def test_error_shapes(error: object, expected: WalletError) -> None:
    assert answer({"error": error}).error == expected


def test_wallets_words_are_cleaned_and_cut() -> None:
    error = answer(
        {"error": {"code": "X" * 99, "message": "a\u202eb\x00\n\ud800 c" + "d" * 999}}
    ).error
    assert error is not None
    assert error.code == "X" * 40
    assert error.message.startswith("ab c")
    assert len(error.message) == 240


def test_empty_error_is_none() -> None:
    for error in [None, dict[str, str](), "", False]:
        read = answer({"error": error, "result": {"balance": 1}, "result_type": 5})
        assert read.error is None
        assert read.result == {"balance": 1}


def test_only_the_code_says_not_found() -> None:
    assert is_not_found(WalletError("NOT_FOUND", ""))
    assert is_not_found(WalletError(normal_code("not found"), ""))
    assert is_not_found(WalletError("INVOICE_NOT_FOUND", ""))
    assert not is_not_found(WalletError("INTERNAL", "invoice not found"))
    assert not is_not_found(WalletError("NO_CODE", "NOT_FOUND"))
    assert not is_not_found(WalletError("OTHER", "not found"))


# --- payments -------------------------------------------------------------------------------------


def paid(**result: object) -> str:
    return json.dumps({"result_type": "pay_invoice", "result": result})


def test_only_a_preimage_that_opens_the_hash_settles() -> None:
    assert outcome_of_reply(paid(preimage=PREIMAGE), HASH, resent=False) == Settled(PREIMAGE)
    shouted = paid(preimage=PREIMAGE.upper(), fees_paid=21.0)
    assert outcome_of_reply(shouted, HASH.upper(), resent=True) == Settled(PREIMAGE, 21)
    for text in (
        paid(),
        paid(preimage=""),
        paid(preimage=None),
        paid(preimage="00" * 32),
        paid(preimage=PREIMAGE[:-1]),
        paid(preimage="5f1c-internal-transfer"),
        paid(preimage=[PREIMAGE]),
    ):
        outcome = outcome_of_reply(text, HASH, resent=False)
        assert isinstance(outcome, Unknown)
        assert outcome.code == "NO_PROOF"
    assert isinstance(outcome_of_reply(paid(preimage=PREIMAGE), None, resent=False), Unknown)


def test_proof_beside_an_error_is_still_proof() -> None:
    body = {"error": {"code": "INTERNAL"}, "result": {"preimage": PREIMAGE}}
    assert isinstance(outcome_of_reply(json.dumps(body), HASH, resent=False), Settled)


@pytest.mark.parametrize("shape", ["code", "type"])
@pytest.mark.parametrize("resent", [False, True])
def test_the_table_of_refusals(shape: str, resent: bool) -> None:
    for code in REFUSALS:
        text = json.dumps({"error": {shape: code, "message": "no"}})
        outcome = outcome_of_reply(text, HASH, resent=resent)
        assert isinstance(outcome, Refused) == (not resent), code
    for code in ("PAYMENT_FAILED", "INTERNAL", "OTHER", "EXPIRED", "NOT_FOUND", "BAD_REQUEST", ""):
        text = json.dumps({"error": {shape: code, "message": "no"}})
        assert isinstance(outcome_of_reply(text, HASH, resent=resent), Unknown), code


def test_legacy_spellings_are_refusals() -> None:
    for code in ("INSUFFICIENT_FUNDS", "BUDGET_EXCEEDED", "insufficient balance"):
        text = json.dumps({"error": {"code": code}})
        assert isinstance(outcome_of_reply(text, HASH, resent=False), Refused)


# --- transactions ---------------------------------------------------------------------------------


def told(**changes: object) -> Transaction | Unreachable:
    value: dict[str, object] = {
        "type": "incoming",
        "state": "settled",
        "payment_hash": HASH,
        "amount": 1_000,
        "settled_at": 1_800_000_000,
    }
    value |= changes
    return parse_transaction({k: v for k, v in value.items() if v != "absent"}, HASH)


def is_paid(**changes: object) -> bool:
    transaction = told(**changes)
    if isinstance(transaction, Unreachable):
        return False
    judged = evidence(transaction, HASH)
    return isinstance(judged, Transaction) and judged.is_incoming_settled


def test_evidence_of_money() -> None:
    assert is_paid()
    assert is_paid(state="SETTLED", settled_at=None)
    assert is_paid(state="absent")
    assert is_paid(payment_hash="absent")
    assert is_paid(payment_hash=HASH.upper())
    assert is_paid(amount=1_000.0)
    assert is_paid(amount="1000")


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "outgoing"},
        {"type": "outgoing", "state": "absent"},
        {"type": "absent"},
        {"type": 5},
        {"state": "pending", "settled_at": None},
        {"state": "accepted", "settled_at": None},
        {"state": "failed"},
        {"state": "paid"},
        {"state": 5},
        {"state": "absent", "settled_at": None},
        {"state": "absent", "settled_at": 0},
        {"state": "absent", "settled_at": "soon"},
        {"payment_hash": "22" * 32},
        {"payment_hash": "garbage"},
        {"amount": "a lot"},
        {"amount": -1},
        {"amount": 1.5},
    ],
)
def test_no_evidence_of_money(changes: dict[str, object]) -> None:
    assert not is_paid(**changes, preimage=PREIMAGE)


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "absent"},
        {"state": "paid"},
        {"state": "pending"},
        {"state": "expired"},
        {"payment_hash": "22" * 32},
    ],
)
def test_contradictions_do_not_count_towards_a_death(changes: dict[str, object]) -> None:
    transaction = told(**changes)
    assert isinstance(transaction, Transaction)
    assert isinstance(evidence(transaction, HASH), Unreachable)


def test_unpaid_and_held_are_readable() -> None:
    for state in ("pending", "expired", "failed", "accepted", "absent"):
        transaction = told(state=state, settled_at=None)
        assert isinstance(transaction, Transaction)
        assert evidence(transaction, HASH) == transaction
        assert transaction.is_accepted == (state == "accepted")


def test_preimage_of_a_transaction_does_not_show() -> None:
    assert PREIMAGE not in repr(told(preimage=PREIMAGE))


def test_lists_skip_what_cannot_be_read() -> None:
    good = {"type": "incoming", "payment_hash": HASH}
    listed = parse_transactions({"transactions": [good, 5, {}, {"payment_hash": "x"}, None]})
    assert isinstance(listed, list)
    assert [t.payment_hash for t in listed] == [HASH]
    assert isinstance(parse_transactions({}), Unreachable)
    assert isinstance(parse_transactions({"transactions": {}}), Unreachable)


# --- the small ones -------------------------------------------------------------------------------


def test_info_with_everything_missing() -> None:
    info = parse_info({}, "nip04")
    assert info.methods == frozenset()
    assert info.encryption == "nip04"
    assert names("pay_invoice get_info") == {"pay_invoice", "get_info"}
    assert names(["a", 5, None, "", "b"]) == {"a", "b"}
    assert names({"a": 1}) == frozenset()


def test_budget() -> None:
    assert parse_budget({}) is None
    assert parse_budget({"used_budget": 5, "total_budget": 10}) == Budget(5, 10, None)
    renewing = {"used_budget": 5, "total_budget": 10, "renews_at": 7}
    assert parse_budget(renewing) == Budget(5, 10, 7)
    assert isinstance(parse_budget({"total_budget": "much"}), Unreachable)


def test_notification() -> None:
    transaction = {"type": "incoming", "payment_hash": HASH, "settled_at": 5}
    text = json.dumps({"notification_type": "payment_received", "notification": transaction})
    read = parse_notification(text)
    assert read is not None
    assert read[0] == "payment_received"
    assert read[1].is_incoming_settled
    assert parse_notification('{"notification_type": "payment_received"}') is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5),
        (5.0, 5),
        ("5", 5),
        (0, 0),
        (True, None),
        (-1, None),
        (1.5, None),
        (float("nan"), None),
        (float("inf"), None),
        (2**63, None),
        (1e300, None),
        ("٣", None),
        ("9" * 30, None),
        (None, None),
        ([], None),
    ],
)
def test_whole_numbers(value: object, expected: int | None) -> None:
    assert whole(value) == expected
