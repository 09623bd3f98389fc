"""What a column becomes is decided by the annotation; what does not fit is a bug."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

import pytest

from billing.store.rows import mapper, to_column


class State(StrEnum):
    OPEN = "open"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Everything:
    number: int
    text: str
    raw: bytes
    flag: bool
    state: State
    maybe: State | None
    side: Literal["in", "out"]
    names: tuple[str, ...]
    states: frozenset[State]
    facts: Mapping[str, Any]
    nothing: int | None


GIVEN = {
    "number": 5,
    "text": "x",
    "raw": b"\x00",
    "flag": True,
    "state": State.OPEN,
    "maybe": None,
    "side": "in",
    "names": ("a", "é"),
    "states": frozenset({State.OPEN, State.DEAD}),
    "facts": {"amount_msat": 1, "list": [1]},
    "nothing": None,
}


def build(**changes: Any) -> Everything:
    columns = {name: to_column(value) for name, value in GIVEN.items()} | changes
    return mapper(Everything, tuple(columns))(tuple(columns.values()))


def test_a_row_comes_back_as_it_was_given() -> None:
    row = build()
    assert {name: getattr(row, name) for name in GIVEN} == GIVEN
    assert type(row.flag) is bool
    assert type(row.state) is State


def test_columns_are_plain() -> None:
    assert to_column(True) == 1
    assert type(to_column(True)) is int
    assert type(to_column(State.OPEN)) is str
    assert to_column(frozenset({"b", "a"})) == '["a","b"]'
    assert to_column((1 << 63) - 1) == (1 << 63) - 1
    with pytest.raises(AssertionError, match="BIGINT"):
        to_column(1 << 63)
    with pytest.raises(AssertionError, match="float"):
        to_column(1.5)  # type: ignore[arg-type]


def test_order_of_columns_does_not_matter() -> None:
    columns = tuple(reversed(GIVEN))
    row = mapper(Everything, columns)([to_column(GIVEN[name]) for name in columns])
    assert row == build()


def test_postgresql_sums_are_integers() -> None:
    assert type(build(number=Decimal(7)).number) is int
    with pytest.raises(AssertionError):
        build(number=Decimal("7.5"))


@pytest.mark.parametrize(
    "changes",
    [
        {"number": None},
        {"number": "5"},
        {"text": 5},
        {"text": None},
        {"flag": 2},
        {"side": "up"},
        {"raw": "text"},
        {"names": 5},
    ],
)
def test_a_value_that_does_not_fit_is_a_bug(changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match=f"Everything.{next(iter(changes))}"):
        build(**changes)


def test_an_unknown_state_is_never_passed_on() -> None:
    with pytest.raises(ValueError, match="gone"):
        build(state="gone")


def test_columns_must_be_the_fields() -> None:
    with pytest.raises(AssertionError, match=r"missing columns \['nothing'\]"):
        mapper(Everything, tuple(GIVEN)[:-1])
    with pytest.raises(AssertionError, match=r"unknown columns \['extra'\]"):
        mapper(Everything, (*GIVEN, "extra"))
    with pytest.raises(AssertionError, match="twice"):
        mapper(Everything, (*GIVEN, "number"))
