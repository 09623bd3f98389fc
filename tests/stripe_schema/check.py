"""Whether a value has the shape that the SDK declares; the errors name the path."""

from __future__ import annotations

from typing import Any

from tests.stripe_schema.types import (
    AnyOf,
    Envelope,
    ListOf,
    MapOf,
    OneOf,
    Plain,
    Ref,
    Shape,
    fields_of,
    resource,
)


def check_object(obj: Any, path: str = "") -> list[str]:
    """A Stripe object by its own `object` field, a list envelope, or a deleted stub."""
    if not isinstance(obj, dict) or not isinstance(obj.get("object"), str):
        return [f"{path}: no object"]
    kind = obj["object"]
    where = path or kind
    if kind == "list":
        return _envelope(obj, None, where)
    ref = resource(kind)
    if ref is None:
        return [f"{where}: the SDK knows no object {kind!r}"]
    if obj.get("deleted") is True and set(obj) == {"id", "object", "deleted"}:
        return []
    errors = _fields(obj, ref, where)
    if kind == "event":
        errors += check_object(obj["data"]["object"], f"{where}.data.object")
    return errors


def _envelope(obj: Any, item: Shape | None, path: str) -> list[str]:
    if not isinstance(obj, dict) or set(obj) != {"object", "data", "has_more", "url"}:
        return [f"{path}: not a list envelope"]
    errors: list[str] = []
    for n, element in enumerate(obj["data"]):
        where = f"{path}.data[{n}]"
        errors += check(element, item, where) if item else check_object(element, where)
    return errors


def _fields(obj: Any, ref: Ref, path: str) -> list[str]:
    fields = fields_of(ref)
    if not isinstance(obj, dict):
        return [f"{path}: not an object"]
    if fields is None:
        return []
    kind = fields.types.get("object")
    if isinstance(kind, OneOf) and obj.get("object") not in kind.values:
        return [f"{path}: object is {obj.get('object')!r}"]
    errors = [f"{path}.{name}: missing" for name in sorted(fields.required - obj.keys())]
    for name, value in obj.items():
        if name in fields.types:
            errors += check(value, fields.types[name], f"{path}.{name}")
        else:
            errors.append(f"{path}.{name}: not a field of {ref.name}")
    return errors


def check(value: Any, shape: Shape, path: str) -> list[str]:
    match shape:
        case Plain(name):
            return [] if _is(name, value) else [f"{path}: {value!r:.60} is not {name}"]
        case OneOf(values):
            return [] if value in values else [f"{path}: {value!r:.60} is not one of {values[:12]}"]
        case ListOf(item):
            if not isinstance(value, list):
                return [f"{path}: not a list"]
            return [e for n, v in enumerate(value) for e in check(v, item, f"{path}[{n}]")]
        case MapOf(inner):
            if not isinstance(value, dict):
                return [f"{path}: not a map"]
            return [e for k, v in value.items() for e in check(v, inner, f"{path}.{k}")]
        case Envelope(item):
            return _envelope(value, item, path)
        case Ref():
            if isinstance(value, dict) and value.get("deleted") is True:
                return check_object(value, path)
            return _fields(value, shape, path)
        case AnyOf(options):
            best: list[str] | None = None
            for option in options:
                errors = check(value, option, path)
                if not errors:
                    return []
                if best is None or isinstance(option, Ref):
                    best = errors
            return best or []


def _is(name: str, value: Any) -> bool:
    match name:
        case "any":
            return True
        case "null":
            return value is None
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "dict":
            return isinstance(value, dict)
        case _:
            return isinstance(value, str)
