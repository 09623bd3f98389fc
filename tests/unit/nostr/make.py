"""What the Nostr unit tests share: key pairs, reproducible bytes, hostile JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from hypothesis import strategies as st

from bot.nostr.keys import Keys

ALICE = Keys(b"\x01" * 32)
BOB = Keys(b"\x02" * 32)
MALLORY = Keys(b"\x03" * 32)
NOW = 1_800_000_000

# Points do not exist for this x coordinate (BIP-340, case 5's neighbourhood: zero is on no curve).
NO_POINT = "00" * 32


def token_bytes(seed: str = "seed") -> Callable[[int], bytes]:
    """Injected randomness that is the same in every run and never repeats within one."""

    def stream() -> Iterator[int]:
        counter = 0
        while True:
            yield from hashlib.sha256(f"{seed}:{counter}".encode()).digest()
            counter += 1

    source = stream()
    return lambda count: bytes(next(source) for _ in range(count))


ANY_TEXT = st.text(st.characters(codec=None), max_size=40)  # lone surrogates too
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
