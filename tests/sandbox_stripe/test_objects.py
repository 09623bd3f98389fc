"""Customers, products, prices, payment methods, lists, expansion, metadata."""

from __future__ import annotations

import httpx
import pytest
import stripe

from tests.sandbox_stripe.conftest import Sandbox


async def test_a_customer_lives_and_a_deleted_one_answers_with_deleted(sandbox: Sandbox) -> None:
    customers = sandbox.v1.customers
    made = await sandbox.customer(name="ab12cd34", metadata={"pubkey": "ab", "op": "1"})
    assert made.id.startswith("cus_")
    assert made.livemode is False
    changed = await customers.update_async(
        made.id, {"metadata": {"op": "", "x": "2"}, "email": "a@b.c"}
    )
    assert changed.metadata.to_dict() == {"pubkey": "ab", "x": "2"}
    assert changed.email == "a@b.c"
    sub = await sandbox.subscribe(made, await sandbox.price())
    await customers.delete_async(made.id)
    gone = await customers.retrieve_async(made.id)
    assert gone.deleted is True
    assert (await sandbox.v1.subscriptions.retrieve_async(sub.id)).status == "incomplete_expired"
    assert (await customers.list_async()).data == []
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await customers.update_async(made.id, {"name": "x"})
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await sandbox.subscribe(made, await sandbox.price())
    assert (caught.value.http_status, caught.value.param) == (400, "customer")


async def test_every_balance_change_is_a_transaction(sandbox: Sandbox) -> None:
    customer = await sandbox.customer()
    txns = sandbox.v1.customers.balance_transactions
    txn = await txns.create_async(
        customer.id, {"amount": -700, "currency": "usd", "metadata": {"op": "o1"}}
    )
    assert (txn.type, txn.ending_balance) == ("adjustment", -700)
    again = await sandbox.v1.customers.update_async(customer.id, {"balance": -200})
    assert (again.balance, again.currency) == (-200, "usd")
    listed = await txns.list_async(customer.id)
    assert [t.amount for t in listed.data] == [500, -700]
    assert (await txns.retrieve_async(customer.id, txn.id)).metadata["op"] == "o1"
    with pytest.raises(stripe.InvalidRequestError, match="combine currencies"):
        await txns.create_async(customer.id, {"amount": 1, "currency": "eur"})


async def test_a_lookup_key_is_unique_and_can_move(sandbox: Sandbox) -> None:
    first = await sandbox.price(500, lookup_key="small")
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        await sandbox.price(600, lookup_key="small")
    second = await sandbox.price(600, lookup_key="small", transfer_lookup_key=True)
    found = await sandbox.v1.prices.list_async({"lookup_keys": ["small", "large"], "active": True})
    assert [p.id for p in found.data] == [second.id]
    assert (await sandbox.v1.prices.retrieve_async(first.id)).lookup_key is None
    with pytest.raises(stripe.InvalidRequestError):
        await sandbox.v1.prices.list_async({"lookup_keys": [str(n) for n in range(11)]})


@pytest.mark.parametrize(
    ("currency", "amount", "refused"),
    [("jpy", 500, False), ("kwd", 1230, False), ("kwd", 1235, True), ("xxx", 1, True)],
)
async def test_currencies_with_no_and_three_decimals(
    sandbox: Sandbox, currency: str, amount: int, refused: bool
) -> None:
    if refused:
        with pytest.raises(stripe.InvalidRequestError):
            await sandbox.price(amount, currency=currency)
    else:
        assert (await sandbox.price(amount, currency=currency)).unit_amount == amount


async def test_products_with_prices_stay(sandbox: Sandbox) -> None:
    products = sandbox.v1.products
    product = await products.create_async({"name": "Relay", "metadata": {"plan": "small"}})
    await products.update_async(product.id, {"active": False, "description": "d"})
    assert [p.id for p in (await products.list_async({"active": False})).data] == [product.id]
    await sandbox.v1.prices.create_async(
        {"currency": "usd", "unit_amount": 1, "product": product.id}
    )
    with pytest.raises(stripe.InvalidRequestError):
        await products.delete_async(product.id)
    lone = await products.create_async({"name": "Lone"})
    assert (await products.delete_async(lone.id)).deleted is True


async def test_lists_page_both_ways(sandbox: Sandbox) -> None:
    made = [(await sandbox.customer(name=str(n))).id for n in range(25)]
    pages = await sandbox.v1.customers.list_async({"limit": 10})
    assert pages.has_more
    seen = [c.id async for c in pages.auto_paging_iter()]
    assert seen == made[::-1]
    back = await sandbox.v1.customers.list_async({"limit": 3, "ending_before": made[20]})
    assert [c.id for c in back.data] == [made[23], made[22], made[21]]
    assert back.has_more
    for bad in ({"limit": 101}, {"limit": 0}, {"starting_after": "cus_nobody"}):
        with pytest.raises(stripe.InvalidRequestError):
            await sandbox.v1.customers.list_async(bad)


async def test_expansion_goes_along_paths_and_refuses_what_is_not_there(sandbox: Sandbox) -> None:
    sub = await sandbox.subscribe(await sandbox.customer(), await sandbox.price())
    deep = await sandbox.v1.subscriptions.retrieve_async(
        sub.id, {"expand": ["latest_invoice.payments", "customer", "items.data.price.product"]}
    )
    assert deep.latest_invoice.payments.data[0].status == "open"
    assert deep.customer.object == "customer"
    assert deep["items"].data[0].price.product.name == "Relay"
    listed = await sandbox.v1.subscriptions.list_async({"expand": ["data.latest_invoice"]})
    assert listed.data[0].latest_invoice.status == "open"
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        await sandbox.v1.subscriptions.retrieve_async(sub.id, {"expand": ["payment_intent"]})


@pytest.mark.parametrize(
    "metadata",
    [{"k" * 41: "v"}, {"k": "v" * 501}, {f"k{n}": "v" for n in range(51)}],
)
async def test_metadata_has_limits(sandbox: Sandbox, metadata: dict[str, str]) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await sandbox.customer(metadata=metadata)
    assert (await sandbox.v1.customers.list_async()).data == []


async def test_cards_attach_decline_and_detach(sandbox: Sandbox) -> None:
    customer = await sandbox.with_card()
    named = customer.invoice_settings.default_payment_method
    assert named.startswith("pm_")
    with pytest.raises(stripe.CardError) as caught:
        await sandbox.v1.payment_methods.attach_async(
            "pm_card_visa_chargeDeclinedInsufficientFunds", {"customer": customer.id}
        )
    assert caught.value.error is not None
    assert caught.value.error.decline_code == "insufficient_funds"
    other = await sandbox.customer()
    with pytest.raises(stripe.InvalidRequestError):
        await sandbox.v1.payment_methods.attach_async(named, {"customer": other.id})
    listed = await sandbox.v1.payment_methods.list_async({"customer": customer.id, "type": "card"})
    assert [m.id for m in listed.data] == [named]
    await sandbox.v1.payment_methods.detach_async(named)
    again = await sandbox.v1.customers.retrieve_async(customer.id)
    assert again.invoice_settings.default_payment_method is None


async def test_a_card_left_on_the_checkout_page_is_attached_and_no_default(
    sandbox: Sandbox,
) -> None:
    customer = await sandbox.customer()
    wanted = {"mode": "setup", "customer": customer.id, "success_url": "https://x"}
    page = await sandbox.v1.checkout.sessions.create_async({**wanted, "currency": "usd"})
    with pytest.raises(stripe.InvalidRequestError):
        await sandbox.v1.checkout.sessions.create_async(wanted)
    async with httpx.AsyncClient() as http:
        left = (await http.post(page.url, json={"card": "visa"})).raise_for_status().json()
        assert (await http.post(page.url, json={"card": "visa"})).status_code == 400, "used up"
    done = await sandbox.v1.checkout.sessions.retrieve_async(page.id, {"expand": ["setup_intent"]})
    assert (done.status, done.setup_intent.payment_method) == ("complete", left["payment_method"])
    seen = await sandbox.v1.customers.retrieve_async(customer.id)
    assert seen.invoice_settings.default_payment_method is None
    told = [e["type"] for e in sandbox.stripe.world.table("event").values()]
    assert told[-3:] == [
        "payment_method.attached",
        "setup_intent.succeeded",
        "checkout.session.completed",
    ]


async def test_a_card_left_in_the_portal_is_the_default(sandbox: Sandbox) -> None:
    customer = await sandbox.customer()
    wanted = {"customer": customer.id, "flow_data": {"type": "payment_method_update"}}
    page = await sandbox.v1.billing_portal.sessions.create_async(wanted)
    async with httpx.AsyncClient() as http:
        left = (await http.post(page.url, json={"card": "mastercard"})).raise_for_status().json()
    seen = await sandbox.v1.customers.retrieve_async(customer.id)
    assert seen.invoice_settings.default_payment_method == left["payment_method"]
    sandbox.stripe.world.settings.portal_configured = False
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await sandbox.v1.billing_portal.sessions.create_async(wanted)
    assert refused.value.code is None, "as Stripe's: only the status says it"


async def test_the_account_tells_who_the_key_belongs_to(sandbox: Sandbox) -> None:
    account = await sandbox.v1.accounts.retrieve_current_async()
    assert account.id.startswith("acct_")
