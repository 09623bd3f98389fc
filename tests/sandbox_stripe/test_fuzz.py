"""Random calls of every endpoint: never a 500, refusals write nothing, the books balance."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from bot.sandbox.stripe import EmbeddedStripe, SandboxClock
from bot.sandbox.stripe.registry import OPERATIONS, Operation
from bot.sandbox.stripe.spec import Array, Choice, Either, Mapping, Scalar, Spec, Struct, load
from bot.sandbox.stripe.world import view
from tests.sandbox_stripe.conftest import FakeTime
from tests.stripe_schema.check import check_object

DAY = 86400
WORDS = ["", "x", "usd", "eur", "a@b.c", "\u0000", "ü" * 9, "1", "min_period_end", "http://x"]
NUMBERS = [0, 1, -1, 2, 7, 49, 50, 500, 10**9, 10**14, 1_801_353_600, 1_803_000_000]


class Fuzzer:
    def __init__(self, embedded: EmbeddedStripe, seed: int) -> None:
        self.embedded = embedded
        self.rng = random.Random(seed)

    def known_id(self, hint: str = "") -> str:
        ids = [i for i in self.embedded.world.by_id if not hint or self._fits(i, hint)]
        return self.rng.choice(ids) if ids and self.rng.random() < 0.95 else "nobody"

    def _fits(self, object_id: str, hint: str) -> bool:
        kind = str(self.embedded.world.by_id[object_id]["object"])
        name = hint.replace("_exposed_id", "").removeprefix("default_")
        return kind.startswith(name) or name in ("id", "item", "intent", "transaction")

    def value(self, spec: Spec, kind: Any, name: str, depth: int = 0) -> Any:
        match kind:
            case Scalar("str"):
                return self.known_id(name) if self.rng.random() < 0.7 else self.rng.choice(WORDS)
            case Scalar("bool"):
                return self.rng.choice(["true", "false", "false", "maybe"])
            case Scalar(_):
                return str(self.rng.choice(NUMBERS))
            case Choice(values):
                return str(self.rng.choice(values)).lower()
            case Array(item):
                return [self.value(spec, item, name, depth) for _ in range(self.rng.randint(1, 3))]
            case Mapping(inner):
                return {f"k{n}": self.value(spec, inner, "", depth) for n in range(2)}
            case Struct(cls):
                fields = spec.structs[cls].types if cls in spec.structs else {}
                chosen = {"price", "quantity", "id"} & fields.keys() if depth < 3 else set()
                return {
                    f: self.value(spec, fields[f], f, depth + 1)
                    for f in sorted(fields)
                    if self.rng.random() < (0.6 if f in chosen else 0.05)
                } or {"x": "y"}
            case Either(options):
                return self.value(spec, self.rng.choice(options), name, depth)

    def call(self, op: Operation) -> tuple[str, str]:
        spec = load(op.params)
        root = spec.structs[spec.root]
        params = {
            name: self.value(spec, root.types[name], name)
            for name in sorted(op.takes & root.types.keys())
            if name in root.required or self.rng.random() < 0.25
        }
        parts = op.path.split("/")
        kind = parts[2].rstrip("s")
        path = "/".join(
            self.known_id(p[1:-1] if p[1:-1] not in ("id", "item", "intent") else kind)
            if p.startswith("{")
            else p
            for p in parts
        )
        return path, urlencode(list(flatten(params)))


def flatten(value: Any, prefix: str = "") -> Any:
    if isinstance(value, dict):
        for k, v in value.items():
            yield from flatten(v, f"{prefix}[{k}]" if prefix else k)
    elif isinstance(value, list):
        for n, v in enumerate(value):
            yield from flatten(v, f"{prefix}[{n}]")
    else:
        yield prefix, value


@pytest.fixture
async def world() -> AsyncIterator[tuple[EmbeddedStripe, httpx.AsyncClient]]:
    """No socket: the same application, called directly."""
    embedded = EmbeddedStripe(api_key="sk_test_fuzz", clock=SandboxClock(FakeTime()))
    transport = httpx.ASGITransport(embedded.app)
    headers = {"Authorization": "Bearer sk_test_fuzz"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://stripe", headers=headers
    ) as http:
        for form in (
            "name=Relay",
            "name=Other",
        ):
            product = (await http.post("/v1/products", content=form)).json()["id"]
            for unit in (500, 1000, 49):
                await http.post(
                    "/v1/prices",
                    content=f"product={product}&currency=usd&unit_amount={unit}"
                    "&recurring[interval]=month",
                )
        prices = list(embedded.world.table("price"))
        for n in range(4):
            body = "payment_method=pm_card_visa&email=a@b.c" if n % 2 else "name=t"
            customer = (await http.post("/v1/customers", content=body)).json()["id"]
            await http.post(
                "/v1/subscriptions",
                content=f"customer={customer}&items[0][price]={prices[n]}"
                "&payment_behavior=default_incomplete",
            )
        for invoice in list(embedded.world.table("invoice"))[:3]:
            await http.post(f"/v1/invoices/{invoice}/pay", content="paid_out_of_band=true")
        yield embedded, http


def snapshot(embedded: EmbeddedStripe) -> dict[str, Any]:
    return {i: view(embedded.world, o) for i, o in embedded.world.by_id.items()}


def books(embedded: EmbeddedStripe) -> list[str]:
    """What must hold whatever was called."""
    wrong = []
    world = embedded.world
    for customer in world.table("customer").values():
        moved = sum(
            t["amount"]
            for t in world.table("customer_balance_transaction").values()
            if t["customer"] == customer["id"]
        )
        if not customer.get("deleted") and moved != customer["balance"]:
            wrong.append(f"balance of {customer}")
    for invoice in world.table("invoice").values():
        total = sum(line["amount"] for line in invoice["_lines"])
        if total != invoice["total"]:
            wrong.append(f"lines of {invoice['id']}")
        if invoice["amount_paid"] + invoice["amount_remaining"] != invoice["amount_due"]:
            wrong.append(f"amounts of {invoice['id']} {invoice['status']}")
        if invoice["status"] == "paid" and invoice["amount_remaining"]:
            wrong.append(f"paid with a rest: {invoice['id']}")
        if invoice["status"] == "open" and invoice["amount_remaining"] <= 0:
            wrong.append(f"open with nothing due: {invoice['id']}")
    for sub in world.table("subscription").values():
        prices = [i["_price"] for i in sub["_items"]]
        if not prices or len(set(prices)) != len(prices):
            wrong.append(f"items of {sub['id']}")
    return wrong


@pytest.mark.parametrize("seed", range(4))
async def test_random_calls_never_break_the_sandbox(
    world: tuple[EmbeddedStripe, httpx.AsyncClient], seed: int
) -> None:
    embedded, http = world
    fuzzer = Fuzzer(embedded, seed)
    accepted = set()
    for round_ in range(4):
        for op in OPERATIONS:
            if op.method == "DELETE" and fuzzer.rng.random() < 0.6:
                continue
            path, form = fuzzer.call(op)
            shown = f"{op.method} {path} {form}"
            before = snapshot(embedded) if op.method != "GET" else {}
            if op.method == "POST":
                answer = await http.post(path, content=form)
            else:
                answer = await http.request(op.method, path + (f"?{form}" if form else ""))
            assert answer.status_code < 500, (shown, embedded.app.crashes)
            if answer.status_code == 200:
                accepted.add((op.method, op.path))
                assert check_object(answer.json()) == [], shown
            elif answer.status_code in (400, 404) and before and not path.endswith("/pay"):
                assert snapshot(embedded) == before, shown
        await embedded.schedule.advance(embedded.world.now() + fuzzer.rng.randint(1, 40) * DAY)
        assert books(embedded) == []
    for obj in list(embedded.world.by_id.values()):
        assert check_object(view(embedded.world, obj)) == []
    assert len(accepted) > 25, sorted(accepted)
