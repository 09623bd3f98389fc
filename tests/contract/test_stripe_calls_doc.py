"""The table of calls in docs/stripe.md is what is measured.

`make stripe-calls` writes it anew, with ARGS="0 100" all but the ten thousand, which take a minute.
"""

from __future__ import annotations

import re

from tests.bench.stripe_calls import BEGIN, DOC, END, rows

HOW = 'run `make stripe-calls ARGS="0 100"`: a change of how often Stripe is asked stands there'


def documented() -> list[str]:
    text = DOC.read_text(encoding="utf-8")
    return text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()


async def test_the_table_says_what_is_measured() -> None:
    lines = documented()
    measured = [str(row) for row in await rows((0, 100))]
    assert [line for line in lines[2:] if "10 000" not in line] == measured, HOW


def test_c28_a_start_costs_at_most_a_call_for_each_hundred_tenants_and_a_constant() -> None:
    """By the recorded table: what 10 000 cost beyond what none cost."""
    calls = {}
    for line in documented()[2:]:
        found = re.match(r"\| start, ([\d ]+) unchanged tenants \| (\d+) \|", line)
        if found is not None:
            calls[int(found[1].replace(" ", ""))] = int(found[2])
    assert calls.keys() == {0, 100, 10_000}
    assert calls[100] <= calls[0] + 1
    assert calls[10_000] <= calls[0] + 100
