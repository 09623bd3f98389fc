"""What the README lists is what the code has."""

from __future__ import annotations

import re

from billing.handlers import EVENT_TYPES
from tests.architecture.tree import ROOT


def test_the_events_to_enable_are_those_that_have_a_handler() -> None:
    text = (ROOT / "README.md").read_text()
    block = text.split("<!-- events:begin -->")[1].split("<!-- events:end -->")[0]
    assert sorted(re.findall(r"[a-z_]+(?:\.[a-z_]+)+", block)) == sorted(EVENT_TYPES)
