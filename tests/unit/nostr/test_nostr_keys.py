"""Keys and their NIP-19 text: nothing secret is shown, nothing wrong is accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.nostr import keys as keys_module
from bot.nostr import nip19
from bot.nostr.keys import Keys, KeysError
from tests.unit.nostr.make import ALICE, BOB, NO_POINT
from wallet.bech32 import bech32_decode, bech32_encode, convert_bits

SECRET = b"\x01" * 32


def test_every_form_of_a_secret_gives_the_same_keys() -> None:
    nsec = ALICE.reveal_nsec()
    for keys in (Keys.from_nsec(nsec), Keys.parse(f" {nsec}\n"), Keys.parse(SECRET.hex() + "\n")):
        assert keys.pubkey == ALICE.pubkey


def test_no_repr_shows_the_secret() -> None:
    shown = f"{ALICE!r} {ALICE!s} {ALICE.secret_key!r}"
    assert SECRET.hex() not in shown
    assert ALICE.reveal_nsec() not in shown
    assert ALICE.pubkey in shown


@pytest.mark.parametrize("text", ["", "nsec1xxx", "00" * 32, "ff" * 32, "01" * 31, "g1" * 32, "é"])
def test_a_bad_secret_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(KeysError) as refused:
        Keys.parse(text)
    assert not text or text not in str(refused.value)


def test_conversation_keys_agree_and_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "CONVERSATIONS", 2)
    mine = Keys(SECRET)
    others = [Keys(bytes([n]) * 32) for n in range(5, 9)]
    for other in others:
        assert mine.conversation_key(other.pubkey) == other.conversation_key(mine.pubkey)
    assert len(mine._conversations) == 2
    for bad in (NO_POINT, "xx", "g" * 64):
        with pytest.raises(KeysError):
            mine.conversation_key(bad)


def test_npub_and_note_round_trip() -> None:
    assert nip19.npub_decode(ALICE.npub) == ALICE.pubkey
    assert nip19.npub_decode(ALICE.npub.upper()) == ALICE.pubkey
    assert nip19.note_decode(nip19.note_encode("ab" * 32)) == "ab" * 32


def test_nprofile_round_trips_and_skips_what_it_does_not_know() -> None:
    profile = nip19.Profile(ALICE.pubkey, ("wss://one.example", "wss://two.example"))
    text = nip19.nprofile_encode(profile)
    assert nip19.nprofile_decode(text) == profile
    assert nip19.parse_pubkey(f"nostr:{text}") == ALICE.pubkey
    raw = bytes([9, 1, 0xFF, 0, 32]) + bytes.fromhex(ALICE.pubkey)
    unknown = bech32_encode("nprofile", convert_bits(raw, 8, 5, pad=True))
    assert nip19.nprofile_decode(unknown) == nip19.Profile(ALICE.pubkey)


@pytest.mark.parametrize("cut", [1, 10, 33])
def test_a_cut_nprofile_is_refused(cut: int) -> None:
    raw = (bytes([0, 32]) + bytes.fromhex(ALICE.pubkey))[:-cut]
    with pytest.raises(nip19.Nip19Error):
        nip19.nprofile_decode(bech32_encode("nprofile", convert_bits(raw, 8, 5, pad=True)))


def test_people_paste_public_keys_in_many_forms() -> None:
    for text in (ALICE.npub, f" nostr:{ALICE.npub} ", ALICE.pubkey, ALICE.pubkey.upper()):
        assert nip19.parse_pubkey(text) == ALICE.pubkey
    for text in (
        "",
        "npub1",
        ALICE.npub[:-1],
        ALICE.npub + "q",
        NO_POINT,
        nip19.note_encode("ab" * 32),
    ):
        with pytest.raises(nip19.Nip19Error):
            nip19.parse_pubkey(text)


def test_a_pasted_secret_key_is_named_and_not_repeated() -> None:
    nsec = BOB.reveal_nsec()
    with pytest.raises(nip19.Nip19Error, match="secret key") as refused:
        nip19.parse_pubkey(nsec)
    assert nsec not in str(refused.value)


def test_an_npub_of_no_point_is_refused() -> None:
    with pytest.raises(nip19.Nip19Error):
        nip19.npub_decode(nip19.npub_encode(NO_POINT))


def test_one_changed_character_never_decodes() -> None:
    npub = ALICE.npub
    for place in range(5, len(npub)):
        changed = npub[:place] + ("q" if npub[place] != "q" else "p") + npub[place + 1 :]
        with pytest.raises(nip19.Nip19Error):
            nip19.parse_pubkey(changed)


@given(
    st.text(max_size=80), st.sampled_from(["", "npub1", "nsec1", "note1", "nprofile1", "nostr:"])
)
def test_any_text_raises_nothing_else(text: str, prefix: str) -> None:
    for decode in (
        nip19.npub_decode,
        nip19.nsec_decode,
        nip19.note_decode,
        nip19.nprofile_decode,
        nip19.parse_pubkey,
    ):
        try:
            decode(prefix + text)
        except nip19.Nip19Error:
            pass


@given(st.binary(max_size=80))
def test_any_bytes_in_an_nprofile_raise_nothing_else(raw: bytes) -> None:
    try:
        nip19.nprofile_decode(bech32_encode("nprofile", convert_bits(raw, 8, 5, pad=True)))
    except nip19.Nip19Error:
        pass


@given(st.binary(max_size=60))
def test_bech32_round_trips(raw: bytes) -> None:
    text = bech32_encode("hrp", convert_bits(raw, 8, 5, pad=True))
    hrp, groups = bech32_decode(text, 200)
    assert (hrp, bytes(convert_bits(groups, 5, 8, pad=False))) == ("hrp", raw)
