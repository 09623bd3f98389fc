"""Secrets open only in their place and with their key, and no error tells them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.store.vault import (
    Key,
    KeyRing,
    Place,
    Vault,
    VaultError,
)

SECRET = "nostr+walletconnect://b889?relay=wss://r.example&secret=5ec2e7"
HOME = Place("connections", "a" * 64, "sealed_uri")
OLD, NEW = Key("k1", b"\x01" * 32), Key("k2", b"\x02" * 32)


class CountingIds:
    """Every call gives other bytes."""

    def __init__(self) -> None:
        self.calls = 0

    def new(self, prefix: str) -> str:
        raise AssertionError

    def token_bytes(self, count: int) -> bytes:
        self.calls += 1
        return self.calls.to_bytes(count, "big")

    def uniform(self) -> float:
        raise AssertionError


def vault(*keys: Key) -> Vault:
    return Vault(KeyRing(keys or (OLD,)), CountingIds())


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_was_sealed_opens(text: str) -> None:
    v = vault()
    assert v.open(v.seal(text, HOME), HOME) == text


def test_the_form_and_the_nonce() -> None:
    v = vault()
    first, second = v.seal(SECRET, HOME), v.seal(SECRET, HOME)
    assert first.split(".")[:2] == ["v1", "k1"]
    assert first.split(".")[2] != second.split(".")[2]
    assert SECRET not in first


@pytest.mark.parametrize(
    "place",
    [
        Place("connections", "b" * 64, "sealed_uri"),
        Place("connections", None, "sealed_uri"),
        Place("connections", "a" * 64, "other"),
        Place("other", "a" * 64, "sealed_uri"),
        # The same letters cut elsewhere are another place.
        Place("connections" + "a", "a" * 63, "sealed_uri"),
    ],
)
def test_a_ciphertext_moved_to_another_place_does_not_open(place: Place) -> None:
    v = vault()
    with pytest.raises(VaultError, match="moved"):
        v.open(v.seal(SECRET, HOME), place)


def test_the_key_id_is_bound_too() -> None:
    """Two ids for one key: a ciphertext renamed to the other does not open."""
    v = vault(OLD, Key("k9", OLD.secret))
    with pytest.raises(VaultError, match="does not open"):
        v.open(v.seal(SECRET, HOME).replace("v1.k1.", "v1.k9."), HOME)


@pytest.mark.parametrize("index", [2, 3])
def test_one_changed_bit_does_not_open(index: int) -> None:
    v = vault()
    parts = v.seal(SECRET, HOME).split(".")
    raw = bytearray(base64.urlsafe_b64decode(parts[index] + "=" * (-len(parts[index]) % 4)))
    raw[0] ^= 1
    parts[index] = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    with pytest.raises(VaultError, match="does not open"):
        v.open(".".join(parts), HOME)


@pytest.mark.parametrize(
    "text", ["", "v1", "v1.k1.AAAA.AAAA", "v2.k1.AAAAAAAAAAAAAAAA.AAAA", "v1.k1.!!.é", SECRET]
)
def test_what_is_not_sealed_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(VaultError, match="not a sealed secret") as caught:
        vault().open(text, HOME)
    assert not text or text not in str(caught.value)


def test_a_ring_reads_old_keys_and_writes_the_first() -> None:
    sealed = vault(OLD).seal(SECRET, HOME)
    both = vault(NEW, OLD)
    assert both.open(sealed, HOME) == SECRET
    assert not sealed.startswith(both.writes_as)
    again = both.seal(both.open(sealed, HOME), HOME)
    assert again.startswith(both.writes_as)
    assert both.writes_as == "v1.k2."
    with pytest.raises(VaultError, match="'k1', which is not in"):
        vault(NEW).open(sealed, HOME)


def test_a_wrong_key_under_the_right_id_does_not_open() -> None:
    with pytest.raises(VaultError, match="wrong key"):
        vault(Key("k1", b"\x07" * 32)).open(vault(OLD).seal(SECRET, HOME), HOME)


def test_no_repr_tells_a_key() -> None:
    ring = KeyRing((Key("k1", b"hunter2!" * 4),))
    assert "hunter2" not in repr(ring)
    assert "hunter2" not in repr(Vault(ring, CountingIds()))
