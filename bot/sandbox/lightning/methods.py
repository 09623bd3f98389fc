"""What a wallet service answers to each NIP-47 method, without any transport.

`handle` returns the decrypted body of the answer, or the Payment that is still in flight, whose
answer is `paid_body` once it has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

from bot.sandbox.lightning.connection import Connection
from bot.sandbox.lightning.faults import Quirks
from bot.sandbox.lightning.model import Invoice, Payment, PaymentRefused
from bot.sandbox.lightning.network import NETWORK_NAMES
from bot.sandbox.lightning.wallet import DEFAULT_EXPIRY_S

Body: TypeAlias = dict[str, Any]
Params: TypeAlias = Mapping[str, Any]

MAX_TRANSACTIONS = 50
"""In one answer: an answer has to fit into one event."""


@dataclass(frozen=True, slots=True)
class How:
    """How to pay: `again` although already paid, `late` although expired (faults only)."""

    again: bool = False
    late: bool = False


class MethodError(Exception):
    """A NIP-47 error to be answered."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def handle(connection: Connection, method: str, params: Params, how: How) -> Body | Payment:
    """Carry the request out. Returns the answer's body, or the payment still in flight."""
    try:
        if method not in _HANDLERS:
            raise MethodError("NOT_IMPLEMENTED", f"unknown method {method[:40]}")
        if connection.revoked == "error":
            raise MethodError("UNAUTHORIZED", "this key has no wallet")
        if method not in connection.methods:
            raise MethodError("RESTRICTED", f"this connection may not {method}")
        result = _HANDLERS[method](connection, params, how)
    except MethodError as error:
        return error_body(connection.quirks, method, error.code, error.message)
    except PaymentRefused as refusal:
        return error_body(connection.quirks, method, refusal.code, refusal.message)
    except (TypeError, ValueError):
        return error_body(connection.quirks, method, "OTHER", "parameters cannot be read")
    if isinstance(result, Payment):
        return result if result.state == "in_flight" else paid_body(connection, result)
    return {"result_type": method, "error": None, "result": result}


def error_body(quirks: Quirks, method: str, code: str, message: str) -> Body:
    """An error in this wallet's habit."""
    body: Body = {"error": {quirks.error_shape: code, "message": message}, "result": None}
    not_found = code == quirks.not_found_code and method == "lookup_invoice"
    if not not_found or quirks.not_found_has_result_type:
        body["result_type"] = method
    return body


def paid_body(connection: Connection, payment: Payment) -> Body:
    """The answer to `pay_invoice` once the payment has ended."""
    if payment.state != "settled":
        reason = payment.failure or "payment failed"
        return error_body(connection.quirks, "pay_invoice", "PAYMENT_FAILED", reason)
    result = {"preimage": payment.preimage, "fees_paid": payment.fees_msat}
    return {"result_type": "pay_invoice", "error": None, "result": result}


def transaction(about: Invoice | Payment, quirks: Quirks, now: int) -> Body:
    """A NIP-47 transaction; optional fields that have no value are left out."""
    incoming = isinstance(about, Invoice)
    known: Body = {
        "type": "incoming" if incoming else "outgoing",
        "invoice": about.bolt11,
        "description": about.description,
        "payment_hash": about.payment_hash,
        "amount": about.amount_msat or 0,
        "fees_paid": 0 if isinstance(about, Invoice) else about.fees_msat,
        "created_at": about.created_at,
        "expires_at": about.expires_at,
        "settled_at": about.settled_at,
        "preimage": about.preimage if about.state == "settled" else None,
    }
    if isinstance(about, Invoice):
        known["amount"] = about.received_msat or about.amount_msat or 0
        if quirks.leaks_preimage:
            known["preimage"] = about.preimage
    elif about.state == "failed" and quirks.settles_failed:
        known |= {"settled_at": now, "preimage": "00" * 32}
    if quirks.tells_state:
        known["state"] = _state(about, now)
    return {key: value for key, value in known.items() if value is not None}


def _state(about: Invoice | Payment, now: int) -> str:
    if isinstance(about, Payment):
        return "pending" if about.state == "in_flight" else about.state
    if about.state == "pending" and now >= about.expires_at:
        return "expired"
    return "failed" if about.state == "cancelled" else about.state


def _get_info(connection: Connection, params: Params, how: How) -> Body:
    network = connection.wallet.network
    return {
        "alias": connection.wallet.name,
        "color": "#8a5cf6",
        "pubkey": connection.wallet.node_pubkey,
        "network": NETWORK_NAMES.get(network.network, "regtest"),
        "block_height": 840_000,
        "block_hash": "00" * 32,
        "methods": list(connection.methods),
        "notifications": list(connection.notifications),
    }


def _get_balance(connection: Connection, params: Params, how: How) -> Body:
    return {"balance": connection.wallet.balance_msat}


def _get_budget(connection: Connection, params: Params, how: How) -> Body:
    if connection.budget_msat is None:
        return {}
    return {
        "used_budget": connection.spent_msat,
        "total_budget": connection.budget_msat,
        "renewal_period": "never",
    }


def _make_invoice(connection: Connection, params: Params, how: How) -> Body:
    amount, expiry = params.get("amount"), params.get("expiry") or DEFAULT_EXPIRY_S
    if not _is_count(amount) or amount == 0:
        raise MethodError("OTHER", "amount has to be a positive number of msat")
    if not _is_count(expiry):
        raise MethodError("OTHER", "expiry has to be a number of seconds")
    wallet, quirks = connection.wallet, connection.quirks
    invoice = wallet.make_invoice(
        quirks.forced_amount_msat or amount,
        str(params.get("description") or ""),
        quirks.forced_expiry_s or expiry,
    )
    return transaction(invoice, quirks, wallet.network.clock())


def _lookup_invoice(connection: Connection, params: Params, how: How) -> Body:
    wallet = connection.wallet
    wanted = params.get("payment_hash")
    if not isinstance(wanted, str) and isinstance(params.get("invoice"), str):
        invoice = wallet.network.invoice_of(params["invoice"])
        wanted = invoice.payment_hash if invoice else None
    found = wallet.lookup(wanted.lower()) if isinstance(wanted, str) else None
    now = wallet.network.clock()
    purged = (
        isinstance(found, Invoice)
        and connection.quirks.purges_expired
        and _state(found, now) == "expired"
    )
    if found is None or purged:
        raise MethodError(connection.quirks.not_found_code, "no such payment")
    return transaction(found, connection.quirks, now)


def _list_transactions(connection: Connection, params: Params, how: How) -> Body:
    since, until = int(params.get("from") or 0), params.get("until")
    limit = min(int(params.get("limit") or MAX_TRANSACTIONS), MAX_TRANSACTIONS)
    offset = int(params.get("offset") or 0)
    chosen = [
        t
        for t in connection.wallet.transactions()
        if t.created_at >= since
        and (until is None or t.created_at <= int(until))
        and (params.get("unpaid") or t.state == "settled")
        and params.get("type") in (None, "incoming" if isinstance(t, Invoice) else "outgoing")
    ]
    now = connection.wallet.network.clock()
    page = chosen[offset : offset + limit]
    return {"transactions": [transaction(t, connection.quirks, now) for t in page]}


def _pay_invoice(connection: Connection, params: Params, how: How) -> Payment:
    text = params.get("invoice")
    if not isinstance(text, str):
        raise MethodError("OTHER", "invoice is missing")
    wallet = connection.wallet
    amount = params.get("amount")
    invoice = wallet.network.invoice_of(text)
    wanted = invoice.amount_msat if invoice and invoice.amount_msat else amount
    if connection.budget_msat is not None and _is_count(wanted):
        cost = wanted + wallet.network.fee_for(wanted)
        if connection.spent_msat + cost > connection.budget_msat:
            raise MethodError("QUOTA_EXCEEDED", "the budget of this connection is used up")
    payment = wallet.network.pay(
        wallet, text, amount if _is_count(amount) else None, again=how.again, late=how.late
    )
    connection.record(payment)
    return payment


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_HANDLERS: dict[str, Callable[[Connection, Params, How], Body | Payment]] = {
    "get_info": _get_info,
    "get_balance": _get_balance,
    "get_budget": _get_budget,
    "make_invoice": _make_invoice,
    "lookup_invoice": _lookup_invoice,
    "list_transactions": _list_transactions,
    "pay_invoice": _pay_invoice,
}
