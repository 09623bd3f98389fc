"""Writes the commented example of the configuration from the models, so that it is never wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from bot.config import Config
from bot.config_keys import example_of
from bot.config_money import PlanSection

HEAD = """\
# Purser's configuration. Every key is here; a line that begins with # and no space shows the
# default, or an example where the comment says that there is none. A key may also come from the
# environment as PURSER_SECTION__KEY, for instance PURSER_HTTP__PORT=8080; lists are separated by
# commas there. Relative paths start at this file. Secret files must not be readable by others.
# `purser check` tells all that is wrong at once."""
WIDTH = 100


def render(values: Mapping[str, Any] | None = None) -> str:
    """The example as TOML text.

    `values` by key path (`bot.name`, `plans.basic.amount`) are written instead of defaults and
    examples: `purser init` and the sandbox make their files so.
    """
    given = dict(values or {})
    lines = [HEAD]
    for name, field in Config.model_fields.items():
        if name == "plans":
            ids = sorted({path.split(".")[1] for path in given if path.startswith("plans.")})
            for plan_id in ids or ["basic"]:
                lines += _section(f"plans.{plan_id}", PlanSection, given)
        else:
            model = field.annotation
            assert isinstance(model, type)
            assert issubclass(model, BaseModel)
            lines += _section(name, model, given)
    if given:
        raise KeyError(f"no such key: {', '.join(sorted(given))}")
    return "\n".join(lines) + "\n"


def _section(path: str, model: type[BaseModel], given: dict[str, Any]) -> Iterator[str]:
    title = (model.__doc__ or "").split(": ", 1)[-1]
    yield ""
    yield f"# {title[:1].upper()}{title[1:]}"
    yield f"[{path}]"
    deeper = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            deeper.append((f"{path}.{name}", inner))
        else:
            yield from _key(f"{path}.{name}", name, field, given)
    for inner_path, inner_model in deeper:
        yield from _section(inner_path, inner_model, given)


def _key(path: str, name: str, field: FieldInfo, given: dict[str, Any]) -> Iterator[str]:
    default = field.get_default(call_default_factory=True)
    example, shown = example_of(field)
    value = default if example is None else example
    note = " Required." if field.is_required() else "" if example is None else " No default."
    yield from _comment(f"{field.description}{note}")
    if path in given:
        yield from _lines("", name, given.pop(path))
    else:
        yield from _lines("" if shown else "#", name, value)


def _lines(sign: str, name: str, value: Any) -> Iterator[str]:
    """One line, or for a list too long for it one line per item."""
    line = f"{sign}{name} = {toml_value(value)}"
    if len(line) <= WIDTH or not isinstance(value, list):
        yield line
        return
    yield f"{sign}{name} = ["
    for item in value:
        yield f"{sign}    {toml_value(item)},"
    yield f"{sign}]"


def _comment(text: str) -> Iterator[str]:
    line = "#"
    for word in text.split():
        if len(line) + 1 + len(word) > WIDTH:
            yield line
            line = "#"
        line += f" {word}"
    yield line


def toml_value(value: Any) -> str:
    """A value as TOML writes it; tables inline, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


if __name__ == "__main__":
    sys.stdout.write(render())
