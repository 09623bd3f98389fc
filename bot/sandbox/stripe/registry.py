"""The table of operations: one decorator per endpoint, and what a handler is given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bot.sandbox.stripe.errors import Obj, invalid, unsupported
from bot.sandbox.stripe.expand import check as check_expand
from bot.sandbox.stripe.spec import load
from bot.sandbox.stripe.world import World, list_of, view

MAX_PAGE = 100
DEFAULT_PAGE = 10
_LISTING = ("limit", "starting_after", "ending_before")


@dataclass(slots=True)
class Call:
    """One API call: the world, the ids in the path, the checked parameters."""

    world: World
    path: str
    ids: dict[str, str]
    params: Obj

    def get(self, name: str, default: Any = None) -> Any:
        return self.params.get(name, default)


Handler = Callable[[Call], Obj]


@dataclass(frozen=True, slots=True)
class Operation:
    """An endpoint; `params` names the SDK's params class, `takes` the part of it acted upon."""

    method: str
    path: str
    params: str
    takes: frozenset[str]
    run: Handler
    pattern: re.Pattern[str]

    def check(self, raw: Obj) -> Obj:
        """Coerced parameters. Errors: 400 for unknown ones, or known but not implemented ones."""
        params = load(self.params).check(raw)
        for name in params:
            if name not in self.takes:
                raise unsupported(name)
        check_expand(self.path, "limit" in self.takes, params.get("expand", []))
        return params


OPERATIONS: list[Operation] = []


def operation(
    method: str, path: str, params: str, takes: str = "", *, listing: bool = False
) -> Callable[[Handler], Handler]:
    """Registers a handler; `listing` adds the pagination parameters."""
    names = {"expand", *takes.split(), *(_LISTING if listing else ())}
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))

    def register(fn: Handler) -> Handler:
        OPERATIONS.append(Operation(method, path, params, frozenset(names), fn, pattern))
        return fn

    return register


def match(method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
    """The operation for a path; literal segments win over placeholders."""
    best: tuple[Operation, dict[str, str]] | None = None
    for op in OPERATIONS:
        found = op.pattern.fullmatch(path) if op.method == method else None
        if found and (best is None or len(found.groupdict()) < len(best[1])):
            best = op, found.groupdict()
    return best


def page(call: Call, objs: Iterable[Obj]) -> Obj:
    """One page of `objs` (newest first), rendered. Errors: 400 for a bad limit or cursor."""
    limit = call.get("limit", DEFAULT_PAGE)
    if not 1 <= limit <= MAX_PAGE:
        bound = "greater than or equal to 1" if limit < 1 else f"less than or equal to {MAX_PAGE}"
        raise invalid(
            f"This value must be {bound}.", param="limit", code="parameter_invalid_integer"
        )
    rows = list(objs)
    after, before = call.get("starting_after"), call.get("ending_before")
    if after and before:
        raise invalid("You may only specify one of these parameters: ending_before, starting_after")
    if after:
        rows = rows[_cursor(call, rows, after, "starting_after") + 1 :]
    if before:
        rows = rows[: _cursor(call, rows, before, "ending_before")]
        shown, more = rows[-limit:], len(rows) > limit
    else:
        shown, more = rows[:limit], len(rows) > limit
    return list_of([view(call.world, o) for o in shown], call.path, more)


def _cursor(call: Call, rows: list[Obj], object_id: str, param: str) -> int:
    for i, row in enumerate(rows):
        if row["id"] == object_id:
            return i
    known = call.world.by_id.get(object_id)
    if known is not None and rows:  # filtered out since: stand where it would be
        same = list(call.world.newest(str(known["object"])))
        order = {o["id"]: n for n, o in enumerate(same)}
        here = order.get(object_id, 0)
        older = [i for i, r in enumerate(rows) if order.get(r["id"], 0) > here]
        first = older[0] if older else len(rows)
        return first - 1 if param == "starting_after" else first
    if known is not None:
        return 0
    raise invalid(f"No such object: '{object_id[:80]}'", param=param, code="resource_missing")


def within(value: int, wanted: Any) -> bool:
    """A `created`-like filter: an integer, or a map of gt, gte, lt, lte."""
    if wanted is None:
        return True
    if isinstance(wanted, int):
        return value == wanted
    return bool(
        value > wanted.get("gt", value - 1)
        and value >= wanted.get("gte", value)
        and value < wanted.get("lt", value + 1)
        and value <= wanted.get("lte", value)
    )


def unset(value: Any) -> Any:
    """An empty string unsets a field."""
    return None if value == "" else value


MAX_METADATA_KEYS, MAX_METADATA_KEY, MAX_METADATA_VALUE = 50, 40, 500  # docs: API, metadata


def merge_metadata(old: Obj | None, change: Any) -> Obj:
    """Stripe's merge: given keys replace, an empty value removes, an empty string clears all."""
    if change is None:
        return dict(old or {})
    if change == "":
        return {}
    out = dict(old or {})
    for key, value in change.items():
        if not isinstance(value, str):
            raise invalid("Metadata values must be strings", param=f"metadata[{key[:40]}]")
        if len(key) > MAX_METADATA_KEY or "[" in key or "]" in key:
            raise invalid(
                f"Metadata keys can be at most {MAX_METADATA_KEY} characters and have no brackets",
                param="metadata",
            )
        if len(value) > MAX_METADATA_VALUE:
            raise invalid(
                f"Metadata values can have up to {MAX_METADATA_VALUE} characters, but you passed "
                f"in a value that is {len(value)} characters.",
                param=f"metadata[{key}]",
            )
        if value == "":
            out.pop(key, None)
        else:
            out[key] = value
    if len(out) > MAX_METADATA_KEYS:
        raise invalid(f"You can have up to {MAX_METADATA_KEYS} metadata keys", param="metadata")
    return out
