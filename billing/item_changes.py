"""How the items of a stored change of a subscription are written down."""

from __future__ import annotations

import json

from billing.views import ItemChange


def dump_changes(changes: tuple[ItemChange, ...]) -> str:
    """As `load_changes` reads it."""
    return json.dumps([[c.price_id, c.quantity, c.item_id] for c in changes])


def load_changes(text: str) -> list[ItemChange]:
    """Price id, quantity and, where there is one already, item id of each."""
    rows: list[list[str | int | None]] = json.loads(text)
    found: list[ItemChange] = []
    for price_id, quantity, item_id in rows:
        assert isinstance(price_id, str)
        assert isinstance(quantity, int)
        assert item_id is None or isinstance(item_id, str)
        found.append(ItemChange(price_id, quantity, item_id))
    return found
