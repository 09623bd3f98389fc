"""`expand[]`: ids replaced by their objects along dotted paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.world import World, view

MAX_DEPTH = 4  # docs: expanding, up to four levels
Include = Callable[[World, Obj], Any]
_includes: dict[tuple[str, str], Include] = {}


def includable(kind: str, name: str) -> Callable[[Include], Include]:
    """Registers a field shown only when it is asked for, such as `invoice.payments`."""

    def register(fn: Include) -> Include:
        _includes[kind, name] = fn
        return fn

    return register


def expand(world: World, shown: Obj, paths: list[str]) -> Obj:
    """Expand in place. Errors: 400 for a field that is not there or no id, or too deep."""
    for path in sorted(set(paths), key=lambda p: p.count(".")):
        parts = path.split(".")
        if len(parts) - (parts[0] == "data") > MAX_DEPTH:
            raise invalid(
                f"You cannot expand more than {MAX_DEPTH} levels of a property.", param="expand"
            )
        _walk(world, shown, parts, path)
    return shown


def _walk(world: World, node: Any, parts: list[str], path: str) -> None:
    if isinstance(node, list):
        for element in node:
            _walk(world, element, parts, path)
        return
    if not isinstance(node, dict) or not parts:
        return
    name, rest = parts[0], parts[1:]
    include = _includes.get((str(node.get("object")), name))
    if include and name not in node:
        node[name] = include(world, node)
    if name not in node:
        if node.get("deleted"):
            return
        raise invalid(f"This property cannot be expanded ({path[:120]}).", param="expand[0]")
    value = node[name]
    if isinstance(value, str):
        target = world.by_id.get(value)
        if target is None:
            raise invalid(f"This property cannot be expanded ({path[:120]}).", param="expand[0]")
        value = node[name] = view(world, target)
    elif isinstance(value, list):
        value[:] = [_object(world, v) for v in value]
    if rest:
        _walk(world, value, rest, path)


def _object(world: World, value: Any) -> Any:
    target = world.by_id.get(value) if isinstance(value, str) else None
    return view(world, target) if target is not None else value
