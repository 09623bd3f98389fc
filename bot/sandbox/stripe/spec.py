"""What parameters an operation takes, read lazily from the installed stripe SDK's own typed params.

Only the one generated file behind an operation is parsed (as source, nothing is imported), the
first time the operation is called; a process keeps the result.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

from bot.sandbox.stripe.errors import Obj, StripeError, invalid

_REQUEST_OPTIONS = frozenset(
    [
        "api_key",
        "stripe_version",
        "stripe_account",
        "stripe_context",
        "max_network_retries",
        "idempotency_key",
        "content_type",
        "headers",
    ]
)


@dataclass(frozen=True, slots=True)
class Scalar:
    """`str`, `int`, `float`, `bool`, `decimal`, or `any`."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Array:
    item: Type


@dataclass(frozen=True, slots=True)
class Mapping:
    value: Type


@dataclass(frozen=True, slots=True)
class Struct:
    """A TypedDict of the same file, by name, so that recursive types stay finite."""

    cls: str


@dataclass(frozen=True, slots=True)
class Either:
    options: tuple[Type, ...]


Type = Scalar | Choice | Array | Mapping | Struct | Either


@dataclass(slots=True)
class Fields:
    types: dict[str, Type] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Spec:
    """All TypedDicts of one params file; `root` is the operation's own."""

    root: str
    structs: dict[str, Fields]

    def check(self, params: Obj) -> Obj:
        """Coerced copy of `params`. Errors: 400 `parameter_unknown`, `parameter_missing`, …"""
        return _struct(self, self.root, params, "")


@cache
def load(params_class: str) -> Spec:
    """The spec of e.g. `InvoicePayParams` or `billing_portal.SessionCreateParams`."""
    package, _, name = params_class.rpartition(".")
    found = importlib.util.find_spec("stripe")
    if found is None or found.origin is None:
        raise RuntimeError("the stripe SDK is not installed")
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    path = Path(found.origin).parent / "params" / package / f"_{snake}.py"
    structs: dict[str, Fields] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            structs[node.name] = _fields(node)
    return Spec(name, structs)


def _fields(node: ast.ClassDef) -> Fields:
    out = Fields()
    for stmt in node.body:
        if not (isinstance(stmt, ast.AnnAssign) and isinstance(stmt.target, ast.Name)):
            continue
        name = stmt.target.id
        if name in _REQUEST_OPTIONS:
            continue
        ann: ast.expr = stmt.annotation
        if isinstance(ann, ast.Subscript) and _head(ann) == "NotRequired":
            ann = ann.slice
        else:
            out.required.add(name)
        out.types[name] = _type(ann)
    return out


def _head(node: ast.Subscript) -> str:
    return node.value.id if isinstance(node.value, ast.Name) else ast.unparse(node.value)


def _type(node: ast.expr) -> Type:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _type(ast.parse(node.value.strip(), mode="eval").body)
    if isinstance(node, ast.BinOp):
        return _either([_type(node.left), _type(node.right)])
    if isinstance(node, ast.Subscript):
        return _generic(node)
    if isinstance(node, ast.Name):
        plain = {"str": "str", "int": "int", "float": "float", "bool": "bool", "Decimal": "decimal"}
        if node.id in plain:
            return Scalar(plain[node.id])
        if node.id.endswith(("Any", "object")):
            return Scalar("any")
        return Struct(node.id)
    return Scalar("any")


def _generic(node: ast.Subscript) -> Type:
    head = _head(node)
    parts = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if head == "Literal":
        return Choice(tuple(ast.literal_eval(p) for p in parts))
    if head in ("List", "list", "Sequence"):
        return Array(_type(parts[0]))
    if head in ("Dict", "dict", "UntypedStripeObject"):
        return Mapping(_type(parts[-1]))
    if head in ("Union", "Optional"):
        return _either([_type(p) for p in parts])
    return Scalar("any")


def _either(parts: list[Type]) -> Type:
    """Flattened; `Literal[...] | str` is how the SDK writes an enum that may grow: closed here."""
    flat: list[Type] = []
    for part in parts:
        flat.extend(part.options if isinstance(part, Either) else (part,))
    if any(isinstance(p, Choice) and p.values != ("",) for p in flat):
        flat = [p for p in flat if p != Scalar("str")]
    return flat[0] if len(flat) == 1 else Either(tuple(flat))


def _struct(spec: Spec, cls: str, value: Any, prefix: str) -> Obj:
    fields = spec.structs.get(cls)
    if not isinstance(value, dict):
        raise invalid("Invalid object", param=prefix or None, saved=False)
    if fields is None:
        return value
    unknown = [_join(prefix, k) for k in value if k not in fields.types]
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        names = ", ".join(n[:80] for n in unknown[:5])
        raise invalid(
            f"Received unknown parameter{plural}: {names}",
            param=unknown[0][:80],
            code="parameter_unknown",
            saved=False,
        )
    for name in sorted(fields.required):
        if name not in value:
            full = _join(prefix, name)
            raise invalid(
                f"Missing required param: {full}.",
                param=full,
                code="parameter_missing",
                saved=False,
            )
    return {k: _value(spec, fields.types[k], v, _join(prefix, k)) for k, v in value.items()}


def _join(prefix: str, name: str) -> str:
    return f"{prefix}[{name}]" if prefix else name


def _value(spec: Spec, kind: Type, value: Any, path: str) -> Any:
    match kind:
        case Scalar(name):
            return _scalar(name, value, path)
        case Choice(values):
            return _choice(values, value, path)
        case Array(item):
            if not isinstance(value, list):
                raise invalid("Invalid array", param=path, saved=False)
            return [_value(spec, item, v, f"{path}[{i}]") for i, v in enumerate(value)]
        case Mapping(inner):
            if isinstance(value, list):  # keys that are all digits look like a list
                value = {str(i): v for i, v in enumerate(value)}
            if not isinstance(value, dict):
                raise invalid("Invalid object", param=path, saved=False)
            return {  # an empty string takes a key out of a metadata-like map
                k: v if v == "" else _value(spec, inner, v, _join(path, k))
                for k, v in value.items()
            }
        case Struct(cls):
            return _struct(spec, cls, value, path)
        case Either(options):
            return _first(spec, options, value, path)


def _first(spec: Spec, options: tuple[Type, ...], value: Any, path: str) -> Any:
    error: StripeError | None = None
    for option in sorted(options, key=lambda o: o == Scalar("str")):
        try:
            return _value(spec, option, value, path)
        except StripeError as e:
            fits = isinstance(option, Struct | Mapping) == isinstance(value, dict)
            if error is None or (fits and option != Choice(("",))):
                error = e
    raise error or invalid("Invalid value", param=path, saved=False)


def _scalar(name: str, value: Any, path: str) -> Any:
    if name == "any":
        return value
    if not isinstance(value, str):
        raise invalid(f"Invalid {_WORD[name]}", param=path, saved=False)
    if value == "":
        raise invalid(
            f"You passed an empty string for '{path}'. We assume empty values are an attempt to "
            f"unset a parameter; however '{path}' cannot be unset. You should remove '{path}' from "
            "your request or supply a non-empty value.",
            param=path,
            code="parameter_invalid_empty",
            saved=False,
        )
    if name == "str":
        return value
    try:
        return _PARSE[name](value)
    except (ValueError, InvalidOperation):
        code = "parameter_invalid_integer" if name == "int" else None
        text = f"Invalid {_WORD[name]}: {value[:80]}"
        raise invalid(text, param=path, code=code, saved=False) from None


def _choice(values: tuple[Any, ...], value: Any, path: str) -> Any:
    for option in values:
        if value == option or (isinstance(option, bool) and value == str(option).lower()):
            return option
    names = " or ".join(str(v) for v in values if v != "")
    shown = value[:80] if isinstance(value, str) else "object"
    raise invalid(f"Invalid {path}: must be one of {names}, not {shown}", param=path, saved=False)


def _int(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,15}", text):
        raise ValueError(text)
    return int(text)


def _bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _decimal(text: str) -> str:
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,12})?", text):
        raise ValueError(text)
    return format(Decimal(text).normalize(), "f")


def _float(text: str) -> float:
    return float(_decimal(text))


_WORD = {"str": "string", "int": "integer", "bool": "boolean", "float": "number"} | {
    "decimal": "decimal"
}
_PARSE: dict[str, Any] = {"int": _int, "bool": _bool, "float": _float, "decimal": _decimal}
