"""Converts parameters to column values, and rows to dataclasses by their annotations."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from billing.store.engine import Param

R = TypeVar("R")
Column = int | str | bytes | None
Converter = Callable[[Any], Any]

_JSON_ORIGINS = (tuple, list, dict, frozenset, Mapping, Sequence)


def to_column(value: Param | Enum) -> Column:
    """bool → 0/1, enum → its value, containers → JSON text; integers must fit 64 bits."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (str, bytes)):
        return value
    if isinstance(value, int):
        assert -(1 << 63) <= value < 1 << 63, "integer does not fit a BIGINT column"
        return int(value)
    if isinstance(value, frozenset):
        value = sorted(value)
    assert isinstance(value, (Mapping, Sequence)), f"no column for a {type(value).__name__}"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_enum_value)


def _enum_value(value: object) -> object:
    assert isinstance(value, Enum), f"no JSON for a {type(value).__name__}"
    return value.value


def to_columns(params: Mapping[str, Param]) -> dict[str, Column]:
    """All parameters of a statement as column values."""
    # Most are texts or nothing, and every statement passes here.
    return {
        name: value if value is None or type(value) is str else to_column(value)
        for name, value in params.items()
    }


def mapper(cls: type[R], columns: tuple[str, ...]) -> Callable[[Sequence[Any]], R]:
    """A function from a row with these columns to `cls`. Any mismatch is an AssertionError."""
    build: Callable[[Sequence[Any]], R] = _mapper(cls, columns)  # type: ignore[arg-type]
    return build


@cache
def _mapper(cls: Any, columns: tuple[str, ...]) -> Callable[[Sequence[Any]], Any]:
    hints = typing.get_type_hints(cls)
    wanted = {field.name for field in dataclasses.fields(cls) if field.init}
    assert len(set(columns)) == len(columns), f"{cls.__name__}: a column is there twice: {columns}"
    assert set(columns) == wanted, (
        f"{cls.__name__}: missing columns {sorted(wanted - set(columns))}, "
        f"unknown columns {sorted(set(columns) - wanted)}"
    )
    steps = [converter(hints[c], f"{cls.__name__}.{c}") for c in columns]
    fields = [field for field in dataclasses.fields(cls) if field.init]
    # In the order of the class: by position costs half of what by name does.
    places = [(columns.index(f.name), steps[columns.index(f.name)]) for f in fields]

    def build(row: Sequence[Any]) -> Any:
        return cls(*[step(row[at]) for at, step in places])

    return build


def converter(hint: Any, where: str) -> Converter:
    """From a column value to an annotated type: the inverse of `to_column`."""
    while isinstance(hint, typing.NewType):
        hint = hint.__supertype__
    if hint is Any:
        return lambda value: value
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _optional(hint, where)
    if origin is typing.Literal:
        return _literal(typing.get_args(hint), where)
    if origin in _JSON_ORIGINS or hint in _JSON_ORIGINS:
        return _json(hint, origin or hint, where)
    assert isinstance(hint, type), f"{where}: no column form for {hint!r}"
    if issubclass(hint, Enum):
        return hint
    if hint is bool:
        return _literal_bool(where)
    if hint is int:
        return _integer(where)
    assert hint in (str, bytes), f"{where}: no column form for {hint!r}"
    return _exactly(hint, where)


def _optional(hint: Any, where: str) -> Converter:
    members = [a for a in typing.get_args(hint) if a is not type(None)]
    assert len(members) == 1, f"{where}: only a union with None has a column form"
    assert len(members) < len(typing.get_args(hint)), f"{where}: {hint!r}"
    inner = converter(members[0], where)
    return lambda value: None if value is None else inner(value)


def _literal(allowed: tuple[Any, ...], where: str) -> Converter:
    def convert(value: Any) -> Any:
        assert value in allowed, f"{where}: not one of {allowed}"
        return value

    return convert


def _literal_bool(where: str) -> Converter:
    def convert(value: Any) -> bool:
        assert value in (0, 1), f"{where}: not 0 or 1"
        return bool(value)

    return convert


def _integer(where: str) -> Converter:
    def convert(value: Any) -> int:
        if type(value) is int:
            return value
        # PostgreSQL sums BIGINT as NUMERIC.
        if isinstance(value, Decimal):
            assert value == value.to_integral_value(), f"{where}: not an integer"
            return int(value)
        assert isinstance(value, int), f"{where}: {type(value).__name__} is not int"
        return value

    return convert


def _exactly(kind: type, where: str) -> Converter:
    def convert(value: Any) -> Any:
        assert isinstance(value, kind), f"{where}: {type(value).__name__} is not {kind.__name__}"
        return value

    return convert


def _json(hint: Any, kind: Any, where: str) -> Converter:
    args = [a for a in typing.get_args(hint) if a is not Ellipsis]
    element = _json_element(args[-1], where) if len(args) == 1 else None

    def convert(value: Any) -> Any:
        assert isinstance(value, str), f"{where}: {type(value).__name__} is not JSON text"
        data = json.loads(value)
        if element is not None:
            data = [element(item) for item in data]
        if kind in (tuple, list, frozenset):
            return kind(data)
        return tuple(data) if kind is Sequence else data

    return convert


def _json_element(hint: Any, where: str) -> Converter | None:
    """Only enums inside a list need building; the rest is JSON's own."""
    return hint if isinstance(hint, type) and issubclass(hint, Enum) else None
