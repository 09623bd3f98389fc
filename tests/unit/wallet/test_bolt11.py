"""The decoder against our own encoder, hostile text, and what two readers could read twice."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.sandbox.bolt11_encode import encode
from wallet.bech32 import bech32_decode, bech32_encode, convert_bits
from wallet.bolt11 import MAX_CHARS, Bolt11Error, decode
from wallet.secp256k1 import compressed_pubkey, sign_recoverable
from wallet.units import MAX_MSAT

KEY = b"\x07" * 32
HASH = "ab" * 32
SECRET = "cd" * 32


def request(amount_msat: int | None = 100_000, **changes: object) -> str:
    given: dict[str, object] = {
        "network": "bcrt",
        "payment_hash": HASH,
        "secret_key32": KEY,
        "timestamp": 1_800_000_000,
        "expiry_s": 600,
        "description": "in_1",
        "payment_secret": SECRET,
    }
    return encode(amount_msat=amount_msat, **(given | changes))  # type: ignore[arg-type]


def signed(hrp: str, groups: list[int]) -> str:
    """Any data part with a good signature."""
    digest = hashlib.sha256(hrp.encode() + bytes(convert_bits(groups, 5, 8, pad=True))).digest()
    return bech32_encode(hrp, groups + convert_bits(sign_recoverable(KEY, digest), 8, 5, pad=True))


def with_field(tag: int, data: list[int], text: str | None = None) -> str:
    """A request with one more field, signed again."""
    hrp, groups = bech32_decode(text or request(), MAX_CHARS)
    return signed(hrp, [*groups[:-104], tag, *divmod(len(data), 32), *data])


@settings(max_examples=60, deadline=None)
@given(
    network=st.sampled_from(["bc", "tb", "tbs", "bcrt"]),
    amount_msat=st.none() | st.integers(1, MAX_MSAT),
    timestamp=st.integers(0, 2**35 - 1),
    expiry_s=st.integers(0, 2**32),
    description=st.text(st.characters(exclude_categories=["Cs"]), max_size=150),
    min_final_cltv=st.integers(0, 2**20),
)
def test_what_is_encoded_is_decoded(
    network: str,
    amount_msat: int | None,
    timestamp: int,
    expiry_s: int,
    description: str,
    min_final_cltv: int,
) -> None:
    text = request(
        amount_msat,
        network=network,
        timestamp=timestamp,
        expiry_s=expiry_s,
        description=description,
        min_final_cltv=min_final_cltv,
    )
    decoded = decode(f"LIGHTNING:{text.upper()} ")
    assert decoded.text == text
    assert decoded.network == network
    assert decoded.amount_msat == amount_msat
    assert (decoded.timestamp, decoded.expiry_s) == (timestamp, expiry_s)
    assert decoded.expires_at == timestamp + expiry_s
    assert decoded.description == description
    assert decoded.min_final_cltv == min_final_cltv
    assert (decoded.payment_hash, decoded.payment_secret) == (HASH, SECRET)
    assert decoded.payee_pubkey == compressed_pubkey(KEY).hex()
    assert decoded.features == {8, 14}


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=400) | st.from_regex(r"ln(bc|tb|bcrt)[0-9]{0,20}[munp]?1[a-z0-9]{0,300}"))
def test_any_text_is_refused_in_words(text: str) -> None:
    with pytest.raises(Bolt11Error):
        decode(text)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["lnbc", "lnbcrt1m", "lntb20u"]),
    st.lists(st.integers(0, 31), min_size=0, max_size=300),
)
def test_any_signed_data_is_refused_or_decoded(hrp: str, groups: list[int]) -> None:
    try:
        decoded = decode(signed(hrp, groups))
    except Bolt11Error:
        return
    assert len(decoded.payment_hash) == len(decoded.payment_secret or "") == 64


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_one_changed_character_never_goes_unseen(data: st.DataObject) -> None:
    text = request()
    at = data.draw(st.integers(0, len(text) - 1))
    char = data.draw(st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
    changed = text[:at] + char + text[at + 1 :]
    if changed != text:
        with pytest.raises(Bolt11Error):
            decode(changed)


def test_long_text_is_refused_before_any_work() -> None:
    with pytest.raises(Bolt11Error, match="longer than"):
        decode("lnbc1" + "q" * 8_000)


def test_unknown_fields_and_lengths_are_skipped() -> None:
    assert decode(with_field(0, [1, 2, 3])).payment_hash == HASH
    assert decode(with_field(1, [0] * 51)).payment_hash == HASH


def test_a_field_twice_is_refused_unless_it_says_the_same() -> None:
    other = convert_bits(b"\xee" * 32, 8, 5, pad=True)
    same = convert_bits(bytes.fromhex(HASH), 8, 5, pad=True)
    assert decode(with_field(1, same)).payment_hash == HASH
    with pytest.raises(Bolt11Error, match="twice"):
        decode(with_field(1, other))


def test_cut_off_field_is_refused() -> None:
    hrp, groups = bech32_decode(request(), MAX_CHARS)
    with pytest.raises(Bolt11Error, match="cut off"):
        decode(signed(hrp, [*groups[:-104], 13, 31]))
    with pytest.raises(Bolt11Error, match="cut off"):
        decode(signed(hrp, [*groups[:-104], 13, 0, 5, 1]))


def test_numbers_beyond_every_clock_are_refused() -> None:
    hrp, groups = bech32_decode(request(), MAX_CHARS)
    plain = signed(hrp, groups[:-104])
    with pytest.raises(Bolt11Error, match="too large"):
        decode(with_field(24, [31] * 1_000, plain))


@pytest.mark.parametrize(
    ("hrp", "words"),
    [
        ("lnbc0", "malformed"),
        ("lnbc01m", "malformed"),
        ("lnbc1k", "malformed"),
        ("lnxy", "unknown network"),
        ("lnbc22000000", "all bitcoin"),
        ("lnbc11p", "millisatoshi"),
        ("lnbc999999999999999999999p", "malformed"),
    ],
)
def test_amounts_that_are_none(hrp: str, words: str) -> None:
    _, groups = bech32_decode(request(), MAX_CHARS)
    with pytest.raises(Bolt11Error, match=words):
        decode(signed(hrp, groups[:-104]))


def test_named_payee_must_have_signed() -> None:
    mine = convert_bits(compressed_pubkey(KEY), 8, 5, pad=True)
    assert decode(with_field(19, mine)).payee_pubkey == compressed_pubkey(KEY).hex()
    other = convert_bits(compressed_pubkey(b"\x08" * 32), 8, 5, pad=True)
    with pytest.raises(Bolt11Error, match="not by the payee"):
        decode(with_field(19, other))


def test_encoder_refuses_what_it_cannot_say() -> None:
    for amount_msat in (0, -1):
        with pytest.raises(ValueError, match="positive"):
            request(amount_msat)
    with pytest.raises(ValueError, match="too long"):
        request(description="x" * 640)


def test_secret_does_not_show() -> None:
    assert SECRET not in repr(decode(request()))
