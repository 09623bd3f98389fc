"""One NWC connection at work: negotiation, questions with time limits, replies however late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from wallet.nwc_codec import Answer, ReadAnswer, parse_answer
from wallet.nwc_replies import PAY_METHOD, Observers, Recent, Witnesses
from wallet.nwc_uri import NwcUri
from wallet.outcome import clean_text
from wallet.ports import (
    Encryption,
    NotSent,
    NwcTransport,
    PublishAnswer,
    Reply,
    SealedRequest,
    Sent,
    Subscription,
    Unreachable,
)

ANSWER_TIMEOUT_S: Final = 20.0
"""A wallet that needs longer is skipped (M3)."""
HEAD_START_S: Final = 5.0
"""How long NIP-44 is given before NIP-04 is asked beside it: some wallets never answer NIP-44."""
READY_TIMEOUT_S: Final = 10.0
REQUEST_LIFETIME_S: Final = 60
"""`expiration` of a question: a wallet that wakes up later must not work on it."""
UNSUPPORTED: Final = "UNSUPPORTED_ENCRYPTION"


class NwcSession:
    """NIP-47 over a transport, for one connection URI; shared by the facades in `wallet.nwc`.

    `encryption` is what an earlier negotiation found (None: not yet known). A remembered NIP-44 is
    given up only on the wallet's own signed word: silence may be a relay that wants NIP-04.
    """

    def __init__(
        self,
        transport: NwcTransport,
        uri: NwcUri,
        *,
        now: Callable[[], int],
        encryption: Encryption | None = None,
        observers: Observers | None = None,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        head_start_s: float = HEAD_START_S,
    ) -> None:
        self.uri = uri
        self.now = now
        self.transport = transport
        self.encryption = encryption
        self._probed_in = encryption
        self._witnesses = Witnesses(observers or Observers(), uri.wallet_pubkey)
        self._answer_timeout_s = answer_timeout_s
        self._head_start_s = head_start_s
        self._subscription: Subscription | None = None
        self._waiting: dict[str, asyncio.Future[str | None]] = {}
        self._asked: Recent[None] = Recent()
        self._seen: Recent[None] = Recent()
        self._negotiating = asyncio.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"NwcSession({self.uri.masked()}, encryption={self.encryption})"

    # --- life -----------------------------------------------------------------------------------

    async def listen(self, timeout_s: float = READY_TIMEOUT_S) -> bool:
        """Subscribe for replies and notifications; True once a relay confirmed it. Needed only to
        hear late answers without asking anything: every question listens by itself."""
        if self._closed:
            return False
        if self._subscription is None:
            self._subscription = self.transport.subscribe(self.uri, self._on_reply)
        return await self._subscription.ready(timeout_s)

    async def close(self) -> None:
        """Stop listening for good; observers finish what they were told, open questions end."""
        self._closed = True
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)
        await self._witnesses.finish()

    # --- questions ------------------------------------------------------------------------------

    async def negotiate(self) -> ReadAnswer:
        """Ask `get_info` in each encryption that may be the wallet's and remember the one that it
        answered. Returns the answer (perhaps the wallet's error), or Unreachable."""
        async with self._negotiating:
            return await self._probe()

    async def ask(
        self, method: str, params: Mapping[str, Any], *, timeout_s: float | None = None
    ) -> ReadAnswer:
        """One question and its answer; negotiates first where that was never done."""
        assert method != PAY_METHOD, "a payment is never a question (M1)"
        if self.encryption is None:
            async with self._negotiating:
                if self.encryption is None:
                    probed = await self._probe()
                    if isinstance(probed, Unreachable):
                        return probed
        assert self.encryption is not None
        timeout_s = self._answer_timeout_s if timeout_s is None else timeout_s
        answer = await self._ask_in(self.encryption, method, params, timeout_s)
        if _is_unsupported(answer):
            self.encryption = None
        return answer

    async def _probe(self) -> ReadAnswer:
        schemes: list[Encryption] = ["nip44_v2", "nip04"]
        if self.encryption == "nip04":
            schemes.reverse()
        elif self.encryption == "nip44_v2":
            schemes.pop()
        deadline = asyncio.get_running_loop().time() + self._answer_timeout_s
        running: dict[asyncio.Task[ReadAnswer], Encryption] = {}
        answer: ReadAnswer = Unreachable("the wallet does not answer")
        try:
            while schemes or running:
                if schemes:
                    scheme = schemes.pop(0)
                    task = asyncio.create_task(self._probe_in(scheme, deadline))
                    running[task] = scheme
                # With a second scheme to come the first has its head start only.
                done, _ = await asyncio.wait(
                    running,
                    timeout=self._head_start_s if schemes else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in [task for task in running if task in done]:
                    scheme, answer = running.pop(task), task.result()
                    if _is_unsupported(answer):
                        if scheme == "nip44_v2" and self.encryption == scheme:
                            self.encryption = None
                            schemes.append("nip04")
                    elif isinstance(answer, Answer):
                        self.encryption = self._probed_in = scheme
                        return answer
            return answer if isinstance(answer, Unreachable) else self._no_common_scheme()
        finally:
            for task in running:
                task.cancel()

    def _no_common_scheme(self) -> Unreachable:
        self.encryption = None
        return Unreachable("the wallet supports neither NIP-44 nor NIP-04")

    async def _probe_in(self, scheme: Encryption, deadline: float) -> ReadAnswer:
        left_s = max(0.0, deadline - asyncio.get_running_loop().time())
        return await self._ask_in(scheme, "get_info", {}, left_s)

    async def _ask_in(
        self, encryption: Encryption, method: str, params: Mapping[str, Any], timeout_s: float
    ) -> ReadAnswer:
        now = self.now()
        request = self.transport.seal(
            self.uri,
            method,
            params,
            encryption=encryption,
            now=now,
            expiration=now + REQUEST_LIFETIME_S,
        )
        waiting: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting[request.event_id] = waiting
        self._asked.put(request.event_id, None)
        refusal = ""
        try:
            async with asyncio.timeout(timeout_s):
                if not await self.listen():
                    return Unreachable("no relay of this connection can be reached")
                sent = await self.transport.publish(self.uri, request)
                if isinstance(sent, NotSent):
                    return Unreachable(sent.reason)
                if sent.accepted is False:
                    # Some relays refuse and still deliver, so this only explains a silence.
                    refusal = f"; the relay refused: {clean_text(sent.message)}"
                content = await waiting
        except TimeoutError:
            return Unreachable(f"no answer within {timeout_s:.0f} s{refusal}")
        finally:
            self._waiting.pop(request.event_id, None)
        if content is None:
            return Unreachable("the connection was closed")
        answer = parse_answer(content)
        if isinstance(answer, Unreachable) or answer.error is not None:
            return answer
        if answer.result_type not in (None, method):
            return Unreachable("the wallet answered another question")
        return answer

    # --- payments: sealed, stored by the caller, then written ------------------------------------

    def seal_pay(
        self, bolt11: str, payment_hash: str, *, now: int, expiration: int
    ) -> SealedRequest:
        """Seal one `pay_invoice`; no I/O. Only after a negotiation: never probe with a payment."""
        # The wallet may have unsaid it since, to another question: that is its own refusal to make.
        encryption = self.encryption or self._probed_in
        assert encryption is not None, "probe before a payment is prepared (M3)"
        request = self.transport.seal(
            self.uri,
            PAY_METHOD,
            {"invoice": bolt11},
            encryption=encryption,
            now=now,
            expiration=expiration,
        )
        self._witnesses.sealed(request.event_id, payment_hash)
        return request

    async def publish_pay(
        self,
        request: SealedRequest,
        *,
        permit: Callable[[], bool],
        earlier: Sent | None = None,
    ) -> PublishAnswer:
        """Write a stored pay request once, to one relay, or not at all (M3); with `earlier` once
        more. The answer comes to `Observers.on_pay_reply`."""
        assert request.method == PAY_METHOD
        if not await self.listen():
            return NotSent("no relay of this connection can be reached")

        def counted_permit() -> bool:
            if not permit():
                return False
            self._witnesses.writing(request.event_id)
            return True

        return await self.transport.publish(
            self.uri, request, one_relay=True, permit=counted_permit, earlier=earlier
        )

    # --- what comes by itself --------------------------------------------------------------------

    def _on_reply(self, reply: Reply) -> None:
        if reply.event_id in self._seen:
            return
        self._seen.put(reply.event_id, None)
        if reply.request_id is None:
            self._witnesses.notification(reply.content)
        elif (waiting := self._waiting.get(reply.request_id)) is not None:
            if not waiting.done():
                waiting.set_result(reply.content)
        elif reply.request_id not in self._asked:
            self._witnesses.pay_reply(reply.request_id, reply.content)


def _is_unsupported(answer: ReadAnswer) -> bool:
    return (
        isinstance(answer, Answer) and answer.error is not None and answer.error.code == UNSUPPORTED
    )
