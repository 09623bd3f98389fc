"""Decoding of Rack-style form bodies: `items[0][price]=p&expand[]=x` into nested lists and maps."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

from bot.sandbox.stripe.errors import Obj, invalid

MAX_PARAMETERS = 1000  # far above any real call; keeps a hostile body from costing memory
MAX_DEPTH = 12  # Stripe's deepest documented parameter has 7 levels
_PART = re.compile(r"\[([^\[\]]*)\]")


def decode(text: bytes) -> Obj:
    """Nested parameters with string leaves.

    Errors: `StripeError` 400 for bytes that are not UTF-8, unbalanced brackets, a name that is both
    scalar and map, or too many or too deep parameters.
    """
    root: Obj = {}
    pairs = [p for p in text.split(b"&") if p]
    if len(pairs) > MAX_PARAMETERS:
        raise invalid("Too many parameters in the request.", saved=False)
    for pair in pairs:
        raw_key, _, raw_value = pair.partition(b"=")
        key, value = _text(raw_key), _text(raw_value)
        _insert(root, _path(key), value, key)
    out = _lists(root)
    return out if isinstance(out, dict) else {"0": out}


def _text(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise invalid("Invalid UTF-8 in the request parameters.", saved=False) from None


def _path(key: str) -> list[str]:
    head, bracket, _ = key.partition("[")
    rest = key[len(head) :]
    parts = _PART.findall(rest)
    if not head or (bracket and "".join(f"[{p}]" for p in parts) != rest):
        raise invalid(f"Invalid parameter name: {key[:80]}", param=key[:80], saved=False)
    if len(parts) >= MAX_DEPTH:
        raise invalid("Parameters are nested too deeply.", param=key[:80], saved=False)
    return [head, *parts]


def _insert(root: Obj, path: list[str], value: str, key: str) -> None:
    node = root
    for i, part in enumerate(path):
        last = i == len(path) - 1
        name = _slot(node, path[i + 1] if not last else None) if part == "" else part
        if last:
            if isinstance(node.get(name), dict):
                raise invalid(f"Invalid hash for {key[:80]}", param=key[:80], saved=False)
            node[name] = value
            return
        child = node.setdefault(name, {})
        if not isinstance(child, dict):
            raise invalid(f"Invalid hash for {key[:80]}", param=key[:80], saved=False)
        node = child


def _slot(node: Obj, following: str | None) -> str:
    """`a[]` starts a new element, except that `a[][x]` fills the last one until x repeats."""
    last = len(node) - 1
    if following and last >= 0:
        current = node.get(str(last))
        if isinstance(current, dict) and following not in current:
            return str(last)
    return str(len(node))


def _lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(k.isascii() and k.isdigit() and len(k) < 6 for k in node):
        return [_lists(node[k]) for k in sorted(node, key=int)]
    return {k: _lists(v) for k, v in node.items()}
