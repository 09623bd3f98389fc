"""`config.example.toml` documents every key with its real default."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from bot.config import Config
from bot.config_example import render
from bot.config_money import PlanSection

EXAMPLE = Path(__file__).resolve().parents[3] / "config.example.toml"
TEXT = EXAMPLE.read_text(encoding="utf-8")


def keys_of(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Every key path with its field, read from the models."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if name == "plans" and model is Config:
            found |= keys_of(PlanSection, "plans.basic.")
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= keys_of(field.annotation, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = field
    return found


def entries() -> dict[str, tuple[str, bool, Any]]:
    """Every key path of the file: its comment, whether it is commented out, its value."""
    found = {}
    section, comment, lines = "", "", iter(TEXT.splitlines())
    for line in lines:
        if match := re.fullmatch(r"\[(.+)\]", line):
            section, comment = match.group(1), ""
        elif line.startswith("# "):
            comment += line[1:]
        elif match := re.fullmatch(r"(#?)(\w+) = (.*)", line):
            sign, name, value = match.groups()
            if value == "[":
                for more in lines:
                    value += more.removeprefix(sign)
                    if more.removeprefix(sign) == "]":
                        break
            parsed = tomllib.loads(f"value = {value}")["value"]
            found[f"{section}.{name}"] = (comment.strip(), sign == "#", parsed)
            comment = ""
        else:
            assert not line.strip(), f"neither key nor comment: {line}"
            comment = ""
    return found


def test_the_example_has_exactly_the_keys_of_the_models() -> None:
    assert list(entries()) == list(keys_of(Config))


@pytest.mark.parametrize("path", list(keys_of(Config)))
def test_a_key_is_documented_with_its_default(path: str) -> None:
    comment, commented_out, value = entries()[path]
    field = keys_of(Config)[path]
    assert len(comment) > 10
    assert comment.startswith(field.description)
    default = field.get_default(call_default_factory=True)
    if field.is_required():
        assert comment.endswith("Required.")
        assert not commented_out
    elif comment.endswith("No default."):
        assert default in (None, [], {})
    else:
        adapter: TypeAdapter[Any] = TypeAdapter(field.annotation)
        assert commented_out
        assert adapter.validate_python(value) == adapter.validate_python(default)


@pytest.mark.parametrize(
    "path", [path for path in keys_of(Config) if re.search(r"_s$|percent$|per_minute$", path)]
)
def test_a_quantity_names_its_unit(path: str) -> None:
    assert re.search(r"second|percent|minute", entries()[path][0]), path


def test_the_example_is_what_the_models_say() -> None:
    assert render() == TEXT, "run: python -m bot.config_example > config.example.toml"


def test_values_of_the_caller_take_the_place_of_examples() -> None:
    text = render({"bot.name": 'Jane "J"', "http.port": 0, "plans.pro.title": "Pro"})
    loaded = tomllib.loads(text)
    assert loaded["bot"]["name"] == 'Jane "J"'
    assert loaded["http"]["port"] == 0
    assert list(loaded["plans"]) == ["pro"]
    with pytest.raises(KeyError, match=r"bot\.nmae"):
        render({"bot.nmae": "x"})
