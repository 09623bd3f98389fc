"""Finds the published vectors that PURSER_VECTORS points to; names and SHA-256 are pinned here."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.required import missing

VARIABLE = "PURSER_VECTORS"

# name -> (sha256, where everybody can get it)
PINNED = {
    "bip340-test-vectors.csv": (
        "34c9d1d9c3a88d524bc80778540dc43f8306ec249a7485293063c376db851c2d",
        "github.com/bitcoin/bips, bip-0340/test-vectors.csv",
    ),
    "nip44.vectors.json": (
        "269ed0f69e4c192512cc779e78c555090cebc7c785b609e338a62afc3ce25040",
        "github.com/paulmillr/nip44, nip44.vectors.json (the sha256 printed in NIP-44)",
    ),
    "bolt11_spec_vectors.json": (
        "0ce52bcd7d92f2be59fa7403dc37bc9d86d6e68ed3295056d6ad70a6d903d432",
        "github.com/lightning/bolts, 11-payment-encoding.md, the examples as JSON",
    ),
    "nips_examples.json": (
        "e6a82331523d690bb327999863babf8634340061930a900cbd1f1b97341155e8",
        "github.com/nostr-protocol/nips, the examples of NIPs 17, 59, 47 and 98 as JSON",
    ),
    "nip59_spoof_example.json": (
        "d97c42affc06f03242275ee90b281ebe397f0a4da3654541f87d8ff1b6bc6489",
        "made for this project; tests/unit/nostr builds the same forgeries itself",
    ),
}


def vector_file(name: str) -> Path:
    """Path of a pinned file, its bytes checked.

    Skips the test when the variable or the file is missing, fails instead where peers are
    required; a file with other bytes is always a failure.
    """
    digest, source = PINNED[name]
    directory = os.environ.get(VARIABLE)
    path = Path(directory) / name if directory else None
    if path is None or not path.is_file():
        reason = f"{VARIABLE} names no directory with {name} (public source: {source})"
        missing(reason)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != digest:
        pytest.fail(f"{path} has SHA-256 {found}, pinned is {digest} (source: {source})")
    return path
