"""Secrets open only in their place and with their key, and no error tells them."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.store.vault import (
    Key,
    KeyRing,
    Place,
    Vault,
    VaultError,
    new_key_line,
    parse_key_file,
    read_key_file,
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
    assert both.needs_rewrite(sealed)
    again = both.seal(both.open(sealed, HOME), HOME)
    assert again.startswith("v1.k2.")
    assert not both.needs_rewrite(again)
    with pytest.raises(VaultError, match="'k1', which is not in"):
        vault(NEW).open(sealed, HOME)


def test_a_wrong_key_under_the_right_id_does_not_open() -> None:
    with pytest.raises(VaultError, match="wrong key"):
        vault(Key("k1", b"\x07" * 32)).open(vault(OLD).seal(SECRET, HOME), HOME)


def test_no_repr_tells_a_key() -> None:
    ring = KeyRing((Key("k1", b"hunter2!" * 4),))
    assert "hunter2" not in repr(ring)
    assert "hunter2" not in repr(Vault(ring, CountingIds()))


def test_key_files() -> None:
    ids = CountingIds()
    text = "# written by purser init\n" + new_key_line("k2", ids) + "\n" + new_key_line("k1", ids)
    ring = parse_key_file(text, "vault.key")
    assert [key.id for key in ring.keys] == ["k2", "k1"]
    assert all(len(key.secret) == 32 for key in ring.keys)
    assert ring.writer.id == "k2"


GOOD = base64.b64encode(b"\x05" * 32).decode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        (GOOD, "line 1"),
        (f"K1 {GOOD}", "line 1"),
        (f"k1 {GOOD} {GOOD}", "line 1"),
        (f"k1 {GOOD}\nk2 {GOOD[:-8]}", "line 2: the key is not base64 of 32"),
        (f"k1 {GOOD}\nk1 {GOOD}", "line 2: the id 'k1' is there twice"),
        ("k1 " + "é" * 32, "line 1: the key is not"),
    ],
)
def test_a_bad_key_file_says_where_and_not_what(text: str, says: str) -> None:
    with pytest.raises(VaultError, match=says) as caught:
        parse_key_file(text, "vault.key")
    assert "vault.key" in str(caught.value)
    assert GOOD[:12] not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_key_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "vault.key"
    path.write_text(f"k1 {GOOD}\n")
    os.chmod(path, mode)
    with pytest.raises(VaultError, match="chmod 600"):
        read_key_file(path)
    os.chmod(path, 0o600)
    assert read_key_file(path).writer.id == "k1"


def test_a_missing_key_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="No such file"):
        read_key_file(tmp_path / "vault.key")
