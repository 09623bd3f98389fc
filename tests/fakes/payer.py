"""A tenant's wallet in memory: a `wallet.ports.Payer` over the toy Lightning network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from bot.sandbox.lightning import Connection
from bot.sandbox.lightning.methods import Body, How, handle, paid_body
from bot.sandbox.lightning.model import Payment
from wallet.bolt11 import decode
from wallet.nwc_codec import is_not_found, outcome_of_reply, parse_answer, parse_transaction
from wallet.nwc_replies import Observers
from wallet.ports import (
    Budget,
    LookupAnswer,
    NotFound,
    NotSent,
    PayReply,
    PublishAnswer,
    SealedRequest,
    Sent,
    Unreachable,
    WalletError,
    WalletInfo,
)

RELAY = "wss://payer.example"

Behaviour: TypeAlias = Literal[
    "honest",
    "silent",
    "pays_silently",
    "late_reply",
    "late",
    "lies",
    "fails_then_pays",
    "no_socket",
]
"""`late_reply` pays at once, `late` at `release()`; both answer at `release()`. `lies` answers
success with a wrong preimage and pays nothing. `fails_then_pays` answers PAYMENT_FAILED and pays
at `release()`. `no_socket`: nothing is written."""


@dataclass(frozen=True, slots=True)
class AnswersError:
    """Answers this error and pays nothing."""

    code: str
    message: str = ""


class FakePayer:
    """Deterministic: what a request causes has happened, and was told to `observers`, when
    `publish_pay` returns. What is to come later comes with `release()`, or, for a payment that the
    network itself held back, with `flush()` after it ended there.

    `answers`: False makes it silent to probes and questions. Any number of payers may share one
    wallet. `written` holds the event ids that reached it, in order, repeats too.
    """

    def __init__(self, connection: Connection, observers: Observers | None = None) -> None:
        self.connection = connection
        self.observers = observers or Observers()
        self.behaviour: Behaviour | AnswersError = "honest"
        self.answers = True
        self.written: list[str] = []
        self._sealed = 0
        self._bolt11s: dict[str, str] = {}
        self._held: list[Callable[[], tuple[str, Body] | None]] = []
        self._in_flight: list[tuple[str, Payment]] = []

    # --- questions ------------------------------------------------------------------------------

    async def probe(self) -> WalletInfo | WalletError | Unreachable:
        if not self.answers:
            return Unreachable("no answer within 20 s")
        return WalletInfo(methods=frozenset(self.connection.methods), network="regtest")

    async def get_balance(self) -> int | WalletError | Unreachable:
        return self.connection.wallet.balance_msat if self.answers else Unreachable("silent")

    async def get_budget(self) -> Budget | WalletError | Unreachable | None:
        if not self.answers:
            return Unreachable("silent")
        total = self.connection.budget_msat
        return None if total is None else Budget(self.connection.spent_msat, total, None)

    async def lookup_outgoing(self, payment_hash: str) -> LookupAnswer:
        if not self.answers:
            return Unreachable("silent")
        body = handle(self.connection, "lookup_invoice", {"payment_hash": payment_hash}, How())
        answer = parse_answer(json.dumps(body))
        assert not isinstance(answer, Unreachable)
        if answer.error is not None:
            return NotFound() if is_not_found(answer.error) else answer.error
        return parse_transaction(answer.result, payment_hash)

    # --- paying ---------------------------------------------------------------------------------

    def prepare_pay(self, bolt11: str, *, now: int, expiration: int) -> SealedRequest:
        # As a nonce does, the count makes each sealing another event.
        self._sealed += 1
        text = json.dumps(
            {"invoice": bolt11, "by": self.connection.client_pubkey, "n": self._sealed}
        )
        event_id = hashlib.sha256(text.encode()).hexdigest()
        return SealedRequest(event_id, text, "pay_invoice", "nip44_v2", now, expiration)

    async def publish_pay(
        self, request: SealedRequest, *, permit: Callable[[], bool]
    ) -> PublishAnswer:
        if self.behaviour == "no_socket":
            return NotSent("no open socket")
        if not permit():
            return NotSent("not permitted any more")
        is_known = request.event_id in self.written
        self.written.append(request.event_id)
        self._bolt11s[request.event_id] = json.loads(request.event_json)["invoice"]
        if not is_known or not self.connection.quirks.dedupes:
            await self._behave(request.event_id, self._bolt11s[request.event_id])
        return Sent(RELAY, True)

    async def resend_pay(
        self, request: SealedRequest, earlier: Sent, *, permit: Callable[[], bool]
    ) -> PublishAnswer:
        return await self.publish_pay(request, permit=permit)

    async def _behave(self, request_id: str, bolt11: str) -> None:
        params = {"invoice": bolt11}
        match self.behaviour:
            case "honest":
                await self._answer(request_id, self._pay(request_id, params))
            case "silent" | "no_socket":
                pass
            case "pays_silently":
                self._pay(request_id, params)
            case "late_reply":
                body = self._pay(request_id, params)
                self._held.append(lambda: None if body is None else (request_id, body))
            case "late":
                self._held.append(lambda: self._later(request_id, params))
            case "lies":
                result = {"preimage": "00" * 32}
                await self._answer(request_id, {"result_type": "pay_invoice", "result": result})
            case "fails_then_pays":
                self._held.append(lambda: self._later(request_id, params) and None)
                await self._answer(request_id, _error("PAYMENT_FAILED", "timed out"))
            case AnswersError(code=code, message=message):
                await self._answer(request_id, _error(code, message))

    def _pay(self, request_id: str, params: dict[str, Any], *, late: bool = False) -> Body | None:
        done = handle(self.connection, "pay_invoice", params, How(late=late))
        if isinstance(done, Payment):
            self._in_flight.append((request_id, done))
            return None
        return done

    def _later(self, request_id: str, params: dict[str, Any]) -> tuple[str, Body] | None:
        body = self._pay(request_id, params, late=True)
        return None if body is None else (request_id, body)

    async def release(self) -> None:
        """Everything held back happens now, and is answered."""
        held, self._held = self._held, []
        for happen in held:
            happened = happen()
            if happened is not None:
                await self._answer(*happened)

    async def flush(self) -> None:
        """Answer the payments that the network held back and that have ended by now."""
        waiting, self._in_flight = self._in_flight, []
        for request_id, payment in waiting:
            if payment.state == "in_flight":
                self._in_flight.append((request_id, payment))
            else:
                await self._answer(request_id, paid_body(self.connection, payment))

    async def _answer(self, request_id: str, body: Body | None) -> None:
        observer = self.observers.on_pay_reply
        if body is None or observer is None:
            return
        payment_hash = decode(self._bolt11s[request_id]).payment_hash
        resent = self.written.count(request_id) > 1
        outcome = outcome_of_reply(json.dumps(body), payment_hash, resent=resent)
        await observer(PayReply(request_id, outcome))


def _error(code: str, message: str) -> Body:
    return {"result_type": "pay_invoice", "error": {"code": code, "message": message}}
