"""The shapes of Stripe's objects, read from the source of the installed stripe SDK.

The SDK's resource classes are generated from Stripe's API description: annotations say the type,
`Optional` says that a field may be null or absent, everything else must be there.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Plain:
    """str, int, float, bool, null, dict or any."""

    name: str


@dataclass(frozen=True)
class OneOf:
    values: tuple[Any, ...]


@dataclass(frozen=True)
class ListOf:
    item: Shape


@dataclass(frozen=True)
class MapOf:
    value: Shape


@dataclass(frozen=True)
class Envelope:
    """Stripe's list object."""

    item: Shape


@dataclass(frozen=True)
class Ref:
    """A class: of a resource file, or nested in one (`Invoice.Parent`)."""

    package: str
    name: str


@dataclass(frozen=True)
class AnyOf:
    options: tuple[Shape, ...]


Shape = Plain | OneOf | ListOf | MapOf | Envelope | Ref | AnyOf


@dataclass
class Fields:
    types: dict[str, Shape] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)


_PLAIN = {
    "str": "str",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "Decimal": "str",
    "Any": "any",
    "object": "any",
    "StripeObject": "dict",
    "UntypedStripeObject": "dict",
    "None": "null",
}


def sdk_root() -> Path:
    found = importlib.util.find_spec("stripe")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


@cache
def _index() -> tuple[dict[tuple[str, str], Path], dict[str, Ref]]:
    """Files by (package, class), and the class of each `object` name; found by text, not parsed."""
    files: dict[tuple[str, str], Path] = {}
    objects: dict[str, Ref] = {}
    root = sdk_root()
    for path in root.rglob("_*.py"):
        package = path.relative_to(root).parent.as_posix().replace(".", "")
        if package.split("/")[0] in ("params", "v2", "events") or path.stem.endswith("_service"):
            continue
        text = path.read_text(encoding="utf-8")
        name = ""
        for found in re.finditer(
            r'^class (\w+)\(|^    OBJECT_NAME: .*?"([\w.]+)"\]+ = ', text, re.M
        ):
            if found[1]:
                name = found[1]
                files[package, name] = path
            elif name:
                objects[found[2]] = Ref(package, name)
    return files, objects


@cache
def resource(object_name: str) -> Ref | None:
    """The class that declares `OBJECT_NAME = object_name`."""
    return _index()[1].get(object_name)


@cache
def _classes(path: Path) -> dict[str, ast.ClassDef]:
    """Top-level and nested classes by dotted name."""
    out: dict[str, ast.ClassDef] = {}

    def visit(node: ast.ClassDef, name: str) -> None:
        out[name] = node
        for child in node.body:
            if isinstance(child, ast.ClassDef):
                visit(child, f"{name}.{child.name}")

    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            visit(node, node.name)
    return out


def _place(package: str, name: str) -> tuple[str, Path] | None:
    files, _ = _index()
    while True:
        if (package, name) in files:
            return package, files[package, name]
        if not package:
            break
        package = package.rpartition("/")[0]
    places = [(p, f) for (p, n), f in files.items() if n == name]
    return places[0] if len(places) == 1 else None


@cache
def fields_of(ref: Ref) -> Fields | None:
    """The declared fields; None for what the SDK leaves open."""
    place = _place(ref.package, ref.name.split(".")[0])
    node = _classes(place[1]).get(ref.name) if place else None
    if node is None:
        return None
    out = Fields()
    for stmt in node.body:
        if not isinstance(stmt, ast.AnnAssign) or not isinstance(stmt.target, ast.Name):
            continue
        name = stmt.target.id
        if name == "OBJECT_NAME" or name.startswith("_inner"):
            continue
        shape = _shape(stmt.annotation, ref)
        out.types[name] = shape
        if not _optional(stmt.annotation) and name != "deleted":
            out.required.add(name)
    return out


def _optional(node: ast.expr) -> bool:
    return isinstance(node, ast.Subscript) and _head(node) == "Optional"


def _head(node: ast.Subscript) -> str:
    return node.value.id if isinstance(node.value, ast.Name) else ast.unparse(node.value)


def _shape(node: ast.expr, where: Ref) -> Shape:
    if isinstance(node, ast.Constant):
        if node.value is None:
            return Plain("null")
        return _shape(ast.parse(str(node.value).strip(), mode="eval").body, where)
    if isinstance(node, ast.BinOp):
        return _any_of([_shape(node.left, where), _shape(node.right, where)])
    if isinstance(node, ast.Attribute):
        return _named(node.attr, where)
    if isinstance(node, ast.Name):
        return _named(node.id, where)
    if isinstance(node, ast.Subscript):
        return _generic(node, where)
    return Plain("any")


def _named(name: str, where: Ref) -> Shape:
    if name in _PLAIN:
        return Plain(_PLAIN[name])
    place = _place(where.package, where.name.split(".")[0])
    known = _classes(place[1]) if place else {}
    scope = where.name
    while True:  # nested classes, innermost first
        if f"{scope}.{name}" in known:
            return Ref(where.package, f"{scope}.{name}")
        if "." not in scope:
            break
        scope = scope.rpartition(".")[0]
    found = _place(where.package, name)
    return Ref(found[0], name) if found else Plain("any")


def _generic(node: ast.Subscript, where: Ref) -> Shape:
    parts = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    shapes = [] if _head(node) == "Literal" else [_shape(p, where) for p in parts]
    match _head(node):
        case "Literal":
            return OneOf(tuple(ast.literal_eval(p) for p in parts))
        case "Optional":
            return _any_of([shapes[0], Plain("null")])
        case "Union":
            return _any_of(shapes)
        case "List":
            return ListOf(shapes[0])
        case "Dict" | "UntypedStripeObject":
            return MapOf(shapes[-1])
        case "ExpandableField":
            return _any_of([Plain("str"), shapes[0]])
        case "ListObject":
            return Envelope(shapes[0])
        case "ClassVar":
            return shapes[0]
        case _:
            return Plain("any")


def _any_of(parts: list[Shape]) -> Shape:
    """Flattened. `Literal | str`, an enum that may grow, is closed: we emit what is known."""
    flat: list[Shape] = []
    for part in parts:
        flat.extend(part.options if isinstance(part, AnyOf) else (part,))
    if any(isinstance(p, OneOf) for p in flat):
        flat = [p for p in flat if p != Plain("str")]
    return flat[0] if len(flat) == 1 else AnyOf(tuple(flat))
