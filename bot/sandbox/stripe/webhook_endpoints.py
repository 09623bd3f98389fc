"""Webhook endpoints: where events go, and with which secret they are signed."""

from __future__ import annotations

from bot.sandbox.stripe.errors import Obj, invalid
from bot.sandbox.stripe.registry import Call, merge_metadata, operation, page
from bot.sandbox.stripe.world import API_VERSION, World, viewer

MAX_ENDPOINTS = 16  # docs: up to 16 endpoints per account


def make(world: World, url: str, enabled_events: list[str], secret: str | None = None) -> Obj:
    """Store an endpoint; the secret is shown at creation only."""
    return world.add(
        {
            "id": world.new_id("we"),
            "object": "webhook_endpoint",
            "api_version": API_VERSION,
            "application": None,
            "created": world.now(),
            "description": None,
            "enabled_events": enabled_events,
            "livemode": False,
            "metadata": {},
            "status": "enabled",
            "url": url,
            "_secret": secret or world.new_id("whsec", 32),
            "_show": True,
        }
    )


@viewer("webhook_endpoint")
def _view(_world: World, stored: Obj, shown: Obj) -> None:
    if stored["_show"]:
        shown["secret"] = stored["_secret"]


@operation(
    "POST",
    "/v1/webhook_endpoints",
    "WebhookEndpointCreateParams",
    "api_version connect description enabled_events metadata url",
)
def create(call: Call) -> Obj:
    """Answers with the secret, once."""
    world = call.world
    if len(world.table("webhook_endpoint")) >= MAX_ENDPOINTS:
        raise invalid(f"You have reached the maximum of {MAX_ENDPOINTS} webhook endpoints.")
    _check(call)
    metadata = merge_metadata(None, call.get("metadata"))
    endpoint = make(world, call.params["url"], list(call.params["enabled_events"]))
    endpoint["metadata"] = metadata
    endpoint["description"] = call.get("description") or None
    endpoint["api_version"] = call.get("api_version")
    shown = {k: v for k, v in endpoint.items() if not k.startswith("_")}
    endpoint["_show"] = False
    return {**shown, "secret": endpoint["_secret"]}


def _check(call: Call) -> None:
    url = call.get("url")
    if url is not None and not url.startswith(("http://", "https://")):
        raise invalid(
            "Invalid URL: an explicit scheme must be provided.", param="url", code="url_invalid"
        )


@operation("GET", "/v1/webhook_endpoints/{webhook_endpoint}", "WebhookEndpointRetrieveParams")
def retrieve(call: Call) -> Obj:
    """Without the secret."""
    return call.world.get("webhook_endpoint", call.ids["webhook_endpoint"], "webhook_endpoint")


@operation(
    "POST",
    "/v1/webhook_endpoints/{webhook_endpoint}",
    "WebhookEndpointUpdateParams",
    "description disabled enabled_events metadata url",
)
def update(call: Call) -> Obj:
    """URL, events, enabled or not."""
    endpoint = retrieve(call)
    _check(call)
    endpoint["metadata"] = merge_metadata(endpoint["metadata"], call.get("metadata"))
    for name in ("url", "enabled_events"):
        if name in call.params:
            endpoint[name] = call.params[name]
    if "description" in call.params:
        endpoint["description"] = call.params["description"] or None
    if "disabled" in call.params:
        endpoint["status"] = "disabled" if call.params["disabled"] else "enabled"
    return endpoint


@operation("GET", "/v1/webhook_endpoints", "WebhookEndpointListParams", listing=True)
def list_all(call: Call) -> Obj:
    """Newest first."""
    return page(call, call.world.newest("webhook_endpoint"))


@operation("DELETE", "/v1/webhook_endpoints/{webhook_endpoint}", "WebhookEndpointDeleteParams")
def delete(call: Call) -> Obj:
    """No event goes there any more."""
    endpoint = retrieve(call)
    call.world.remove(endpoint)
    return {"id": endpoint["id"], "object": "webhook_endpoint", "deleted": True}
