"""The examples printed in NIPs 17, 59, 47 and 98, and the forgeries made for this project."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bot.nostr import nip17, nip59
from bot.nostr.events import EventError, parse_event, parse_rumor
from bot.nostr.keys import Keys
from tests.vectors.vectors import vector_file


@pytest.fixture(scope="module")
def examples() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(vector_file("nips_examples.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def forgeries() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(vector_file("nip59_spoof_example.json").read_text())
    return loaded


def test_nip17_example_opens_for_receiver_and_sender(examples: dict[str, Any]) -> None:
    example = examples["nip17"]
    sender = Keys.from_nsec(example["sender_nsec"])
    receiver = Keys.from_nsec(example["receiver_nsec"])
    to_receiver, to_sender = (parse_event(wrap) for wrap in example["wraps"])
    rumors = [parse_rumor(rumor) for rumor in example["rumors"]]
    assert nip59.unwrap(receiver, to_receiver).rumor == rumors[0]
    assert nip59.unwrap(sender, to_sender).rumor == rumors[1]

    message = nip17.receive(receiver, to_receiver, rumors[0].created_at)
    assert isinstance(message, nip17.DirectMessage)
    assert (message.sender, message.text) == (sender.pubkey, "Hola, que tal?")
    assert message.rumor_id == rumors[0].id
    own_copy = nip17.receive(sender, to_sender, rumors[1].created_at)
    assert own_copy is nip17.Ignored.OWN


def test_nip59_example_opens_for_its_recipient_only(examples: dict[str, Any]) -> None:
    example = examples["nip59"]
    wrap = parse_event(example["wrap"])
    opened = nip59.unwrap(Keys.from_nsec(example["recipient_nsec"]), wrap)
    assert opened.rumor == parse_rumor(example["rumor"])
    with pytest.raises(nip59.UnwrapError) as refused:
        nip59.unwrap(Keys.from_nsec(example["author_nsec"]), wrap)
    assert refused.value.reason is nip59.Refusal.NOT_FOR_US


@pytest.mark.parametrize("nip", ["nip47", "nip98"])
def test_sample_events_that_do_not_verify_are_refused(examples: dict[str, Any], nip: str) -> None:
    assert examples[nip]["verifies"] is False
    with pytest.raises(EventError):
        parse_event(examples[nip]["event"])


@pytest.mark.parametrize(
    ("name", "reason"),
    [("wrap", nip59.Refusal.FORGED_SENDER), ("wrap2", nip59.Refusal.NOT_A_SEAL)],
)
def test_forgeries_are_refused(forgeries: dict[str, Any], name: str, reason: nip59.Refusal) -> None:
    keys = Keys.from_hex(forgeries["sk"])
    with pytest.raises(nip59.UnwrapError) as refused:
        nip59.unwrap(keys, parse_event(forgeries[name]))
    assert refused.value.reason is reason
