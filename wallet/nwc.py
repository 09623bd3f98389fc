"""The operator's and the tenants' wallets over NIP-47: a payee that cannot pay, and a payer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from wallet.bolt11 import Bolt11, decode
from wallet.nwc_codec import (
    evidence,
    is_not_found,
    names,
    parse_balance,
    parse_budget,
    parse_info,
    parse_transaction,
    parse_transactions,
)
from wallet.nwc_session import NwcSession
from wallet.payee_check import check_payment_request
from wallet.ports import (
    BadBolt11,
    Budget,
    LookupAnswer,
    MakeInvoiceAnswer,
    NotFound,
    PublishAnswer,
    SealedRequest,
    Sent,
    Transaction,
    Unreachable,
    WalletError,
    WalletInfo,
)

PAGE: Final = 20
"""Transactions asked for at a time: with their bolt11s an answer has to fit into one event."""
MAX_PAGES: Final = 250
"""5 000 transactions: a month of the largest operator. A list only ever adds evidence, so what is
beyond it is left to the look-ups."""
NO_PERMISSION: Final = frozenset({"RESTRICTED", "NOT_IMPLEMENTED", "UNAUTHORIZED"})


class NwcPayee:
    """The operator's wallet (`wallet.ports.Payee`); it has no way to pay (M6, M8).

    `network` is the bech32 prefix after `ln` that its payment requests must have; `pinned_payee`
    the node key that must sign them (66 hex; None: any).
    """

    def __init__(
        self, session: NwcSession, *, network: str = "bc", pinned_payee: str | None = None
    ) -> None:
        self._session = session
        self._network = network
        self._pinned_payee = pinned_payee

    async def make_invoice(
        self, amount_msat: int, description: str, expiry_s: int
    ) -> MakeInvoiceAnswer:
        """A fresh payment request, checked: see `wallet.payee_check`."""
        params = {"amount": amount_msat, "description": description, "expiry": expiry_s}
        result = await _result(self._session, "make_invoice", params)
        if not isinstance(result, Mapping):
            return result
        text = result.get("invoice")
        if not isinstance(text, str):
            return BadBolt11("the wallet answered without a payment request")
        request = check_payment_request(
            text,
            asked_amount_msat=amount_msat,
            asked_expiry_s=expiry_s,
            network=self._network,
            now=self._session.now(),
            pinned_payee=self._pinned_payee,
        )
        told = result.get("payment_hash")
        if isinstance(request, Bolt11) and told and told != request.payment_hash:
            return BadBolt11("the wallet named another payment hash than its payment request has")
        return request

    async def lookup_invoice(self, payment_hash: str) -> LookupAnswer:
        """What our wallet says of a hash; contradictions and unknown states are no answer (M6)."""
        answer = await _lookup(self._session, payment_hash)
        return evidence(answer, payment_hash) if isinstance(answer, Transaction) else answer

    async def get_info(self) -> WalletInfo | WalletError | Unreachable:
        """Negotiates anew; `purser check` refuses a payee whose methods include `pay_invoice`."""
        return await _info(self._session)

    async def list_incoming(self, since: int) -> list[Transaction] | WalletError | Unreachable:
        """Incoming settled transactions created since then, each hash once."""
        found: dict[str, Transaction] = {}
        seen: set[str] = set()
        for page in range(MAX_PAGES):
            params = {
                "from": since,
                "limit": PAGE,
                "offset": page * PAGE,
                "type": "incoming",
                "unpaid": False,
            }
            result = await _result(self._session, "list_transactions", params)
            if not isinstance(result, Mapping):
                return result
            listed = parse_transactions(result)
            if isinstance(listed, Unreachable):
                return listed
            new = [told for told in listed if told.payment_hash not in seen]
            if not new:
                # The end, or a wallet that ignores the offset and would repeat itself for ever.
                break
            seen.update(told.payment_hash for told in new)
            found |= {told.payment_hash: told for told in new if told.is_incoming_settled}
        return list(found.values())

    async def close(self) -> None:
        """Stop listening."""
        await self._session.close()


class NwcPayer:
    """A tenant's wallet (`wallet.ports.Payer`). Paying is prepare, store, publish; what the
    wallet answers comes to the session's observers."""

    def __init__(self, session: NwcSession) -> None:
        self._session = session

    async def probe(self) -> WalletInfo | WalletError | Unreachable:
        """`get_info`; where this connection may not ask that, `get_balance` and the methods of
        the wallet's info event."""
        info = await _info(self._session)
        if not isinstance(info, WalletError) or info.code not in NO_PERMISSION:
            return info
        balance = await self.get_balance()
        if not isinstance(balance, int):
            return info
        event = await self._session.transport.info_event(self._session.uri) or {}
        return WalletInfo(
            methods=names(event.get("methods")),
            notifications=names(event.get("notifications")),
            encryption=self._session.encryption or "nip44_v2",
        )

    async def get_balance(self) -> int | WalletError | Unreachable:
        """Msat."""
        result = await _result(self._session, "get_balance", {})
        return parse_balance(result) if isinstance(result, Mapping) else result

    async def get_budget(self) -> Budget | WalletError | Unreachable | None:
        """Advisory; None: no budget is set."""
        result = await _result(self._session, "get_budget", {})
        return parse_budget(result) if isinstance(result, Mapping) else result

    def prepare_pay(self, bolt11: str, *, now: int, expiration: int) -> SealedRequest:
        """Seal one `pay_invoice` for a checked bolt11, to be stored before it is published."""
        request = decode(bolt11)
        return self._session.seal_pay(
            request.text, request.payment_hash, now=now, expiration=expiration
        )

    async def publish_pay(
        self, request: SealedRequest, *, permit: Callable[[], bool]
    ) -> PublishAnswer:
        """Write the stored request once, to one relay, or not at all (M3)."""
        return await self._session.publish_pay(request, permit=permit)

    async def resend_pay(
        self, request: SealedRequest, earlier: Sent, *, permit: Callable[[], bool]
    ) -> PublishAnswer:
        """The identical signed event once more, rather to another relay (M3)."""
        return await self._session.publish_pay(request, permit=permit, earlier=earlier)

    async def lookup_outgoing(self, payment_hash: str) -> LookupAnswer:
        """What the wallet says of a hash: a witness for a payer, it marks nothing paid (M6)."""
        return await _lookup(self._session, payment_hash)

    async def close(self) -> None:
        """Stop listening."""
        await self._session.close()


async def _result(
    session: NwcSession, method: str, params: Mapping[str, Any]
) -> Mapping[str, Any] | WalletError | Unreachable:
    answer = await session.ask(method, params)
    if isinstance(answer, Unreachable):
        return answer
    if answer.error is not None:
        return answer.error
    assert answer.result is not None
    return answer.result


async def _info(session: NwcSession) -> WalletInfo | WalletError | Unreachable:
    answer = await session.negotiate()
    if isinstance(answer, Unreachable):
        return answer
    if answer.error is not None:
        return answer.error
    assert answer.result is not None
    assert session.encryption is not None
    return parse_info(answer.result, session.encryption)


async def _lookup(session: NwcSession, payment_hash: str) -> LookupAnswer:
    result = await _result(session, "lookup_invoice", {"payment_hash": payment_hash})
    if isinstance(result, WalletError):
        return NotFound(result.code) if is_not_found(result) else result
    if isinstance(result, Unreachable):
        return result
    if not result:
        return Unreachable("the wallet's answer is empty")
    return parse_transaction(result, payment_hash)
