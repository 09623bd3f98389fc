"""What the README lists is what the code has.

`UPDATE_DOCS=1 pytest tests/architecture/test_readme.py` writes the list of events anew.
"""

from __future__ import annotations

import os

from billing.handlers import EVENT_TYPES
from tests.architecture.tree import ROOT

BEGIN, END = "<!-- events:begin -->\n", "<!-- events:end -->"


def test_the_events_to_enable_are_those_that_have_a_handler() -> None:
    path = ROOT / "README.md"
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    listed = "```\n" + "".join(f"{name}\n" for name in EVENT_TYPES) + "```\n"
    wanted = f"{before}{BEGIN}{listed}{END}{after}"
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(wanted)
    assert path.read_text() == wanted, "run it with UPDATE_DOCS=1"
