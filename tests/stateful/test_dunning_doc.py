"""docs/dunning.md says what the code does; the default timeline is that of the configuration."""

from __future__ import annotations

import os
import re
from pathlib import Path

from billing.dunning import DEFAULT_STEPS
from bot.config_dunning import DunningSection, dunning_policy
from tests.stateful import dunning_doc

DOC = Path(__file__).parents[2] / "docs" / "dunning.md"


def test_the_document_is_fresh() -> None:
    text = DOC.read_text()
    for name, body in dunning_doc.sections().items():
        pattern = re.compile(rf"<!-- {name} -->\n.*?<!-- /{name} -->", re.S)
        assert len(pattern.findall(text)) == 1, name
        text = pattern.sub(lambda _, n=name, b=body: f"<!-- {n} -->\n{b}\n<!-- /{n} -->", text)
    if os.environ.get("UPDATE_DOCS"):
        DOC.write_text(text)
    assert text == DOC.read_text(), "UPDATE_DOCS=1 pytest tests/stateful/test_dunning_doc.py"


def test_without_configuration_it_is_the_timeline_of_the_design() -> None:
    assert dunning_policy(DunningSection()).steps == DEFAULT_STEPS
