"""A payment request of our own wallet is used only if it is what was asked for."""

from __future__ import annotations

import pytest

from bot.sandbox.bolt11_encode import encode
from wallet.bolt11 import Bolt11
from wallet.payee_check import check_payment_request
from wallet.ports import BadBolt11
from wallet.secp256k1 import compressed_pubkey

NOW = 1_800_000_000
KEY = b"\x07" * 32


def checked(
    amount_msat: int | None = 1_000,
    timestamp: int = NOW,
    expiry_s: int = 600,
    network: str = "bc",
    key: bytes = KEY,
    pinned: str | None = compressed_pubkey(KEY).hex(),
) -> Bolt11 | BadBolt11:
    text = encode(network, amount_msat, "ab" * 32, key, timestamp, expiry_s, "in_1", "cd" * 32)
    return check_payment_request(
        text,
        asked_amount_msat=1_000,
        asked_expiry_s=600,
        network="bc",
        now=NOW,
        pinned_payee=pinned,
    )


def test_what_was_asked_is_taken() -> None:
    for answer in (
        checked(),
        checked(expiry_s=660),
        checked(timestamp=NOW - 100),
        checked(timestamp=NOW + 600, expiry_s=60),
        checked(pinned=compressed_pubkey(KEY).hex().upper()),
        checked(key=b"\x08" * 32, pinned=None),
    ):
        assert isinstance(answer, Bolt11)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (checked(network="tb"), "network"),
        (checked(amount_msat=None), "asks for None"),
        (checked(amount_msat=1_001), "asks for 1001"),
        (checked(timestamp=NOW - 601, expiry_s=1_200), "dated"),
        (checked(timestamp=NOW + 601, expiry_s=1), "dated"),
        (checked(expiry_s=661), "later than asked"),
        (checked(expiry_s=3_600), "later than asked"),
        (checked(timestamp=NOW + 61), "later than asked"),
        (checked(expiry_s=60), "earlier than asked"),
        (checked(key=b"\x08" * 32), "another node"),
    ],
)
def test_anything_else_is_refused(answer: Bolt11 | BadBolt11, words: str) -> None:
    assert isinstance(answer, BadBolt11)
    assert words in answer.reason


def test_text_that_is_none_is_refused() -> None:
    answer = check_payment_request(
        "lnbc1nonsense", asked_amount_msat=1, asked_expiry_s=1, network="bc", now=NOW
    )
    assert isinstance(answer, BadBolt11)
