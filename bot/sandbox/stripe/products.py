"""Products."""

from __future__ import annotations

from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.registry import Call, merge_metadata, operation, page, unset, within
from bot.sandbox.stripe.world import World, view

_TAKES = "active description metadata name statement_descriptor unit_label url images"
_OPTIONAL = ("description", "statement_descriptor", "unit_label", "url")


def make(world: World, name: str, **fields: object) -> Obj:
    """Store a product and tell it."""
    product: Obj = {
        "id": world.new_id("prod", 14),
        "object": "product",
        "active": True,
        "created": world.now(),
        "default_price": None,
        "description": None,
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": {},
        "name": name,
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": "service",
        "unit_label": None,
        "updated": world.now(),
        "url": None,
    }
    product.update(fields)
    world.add(product)
    world.emit("product.created", product)
    return product


@operation("POST", "/v1/products", "ProductCreateParams", _TAKES + " id type")
def create(call: Call) -> Obj:
    """A product, with an id of the caller's choosing if given."""
    params = {k: v for k, v in call.params.items() if k not in ("expand", "metadata", "name")}
    params["metadata"] = merge_metadata(None, call.get("metadata"))
    chosen = params.get("id")
    if chosen is not None and (chosen in call.world.by_id or not str(chosen).isprintable()):
        raise invalid("Product already exists.", param="id", code="resource_already_exists")
    return make(call.world, call.params["name"], **params)


@operation("GET", "/v1/products/{id}", "ProductRetrieveParams")
def retrieve(call: Call) -> Obj:
    """One product."""
    return call.world.get("product", call.ids["id"])


@operation("POST", "/v1/products/{id}", "ProductUpdateParams", _TAKES)
def update(call: Call) -> Obj:
    """Metadata merges, an empty string unsets."""
    world = call.world
    product = world.get("product", call.ids["id"])
    metadata = merge_metadata(product["metadata"], call.get("metadata"))
    before = view(world, product)
    for name in ("active", "name", *_OPTIONAL):
        if name in call.params:
            product[name] = unset(call.params[name])
    if "images" in call.params:
        product["images"] = call.params["images"] or []
    product["metadata"] = metadata
    product["updated"] = world.now()
    world.emit_change("product.updated", product, before)
    return product


@operation("GET", "/v1/products", "ProductListParams", "active created ids url", listing=True)
def list_all(call: Call) -> Obj:
    """Newest first."""
    ids = call.get("ids")
    return page(
        call,
        (
            p
            for p in call.world.newest("product")
            if call.get("active") in (None, p["active"])
            and (ids is None or p["id"] in ids)
            and call.get("url") in (None, p["url"])
            and within(p["created"], call.get("created"))
        ),
    )


@operation("DELETE", "/v1/products/{id}", "ProductDeleteParams")
def delete(call: Call) -> Obj:
    """Only a product without prices can be deleted."""
    world = call.world
    product = world.get("product", call.ids["id"])
    if any(p["product"] == product["id"] for p in world.table("price").values()):
        raise invalid(
            "This product cannot be deleted because it has one or more user-created prices."
        )
    world.remove(product)
    world.emit("product.deleted", product)
    return {"id": product["id"], "object": "product", "deleted": True}
