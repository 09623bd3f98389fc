"""The HTTP face: authentication, parameters, idempotency, faults, errors as JSON."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from bot.sandbox.stripe import control, forms
from bot.sandbox.stripe.errors import (
    Obj,
    StripeError,
    api_error,
    authentication,
    invalid,
    rate_limit,
)
from bot.sandbox.stripe.expand import expand
from bot.sandbox.stripe.faults import Fault
from bot.sandbox.stripe.registry import Call, Operation, match
from bot.sandbox.stripe.world import API_VERSION, RequestInfo, view

if TYPE_CHECKING:
    from bot.sandbox.stripe.server import EmbeddedStripe

_log = logging.getLogger(__name__)
MAX_BODY = 1 << 20  # no call of ours comes near; a hostile one shall not fill memory
HELD_S = 60.0  # how long a `timeout` fault without delay_s holds the connection
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(\.[a-z]+)?(; .*)?")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One answered call, for recorders in tests."""

    method: str
    path: str
    status: int
    body: Obj


@dataclass(slots=True)
class Answer:
    status: int
    body: Obj
    headers: dict[str, str]


class NotJson(Exception):
    """A proxy before Stripe answers with a page of its own."""


class Cut(Exception):
    """The connection ends without a complete answer."""


class App:
    """A plain ASGI application over one `EmbeddedStripe`."""

    def __init__(self, stripe: EmbeddedStripe) -> None:
        self._stripe = stripe
        self.on_exchange: list[Callable[[Exchange], None]] = []
        self.crashes: list[BaseException] = []
        self._second = (0, 0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except Cut:
            await _cut(send)
            return
        except NotJson:
            await send({"type": "http.response.start", "status": 502, "headers": []})
            await send({"type": "http.response.body", "body": b"<h1>502 Bad Gateway</h1>"})
            return
        except ClientDisconnect:
            return
        for listener in self.on_exchange:
            listener(Exchange(request.method, request.url.path, answer.status, answer.body))
        payload = json.dumps(answer.body, indent=2).encode()
        headers = {"content-type": "application/json", "content-length": str(len(payload))}
        headers |= answer.headers
        raw = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": payload})

    async def _answer(self, request: Request) -> Answer:
        request_id = self._stripe.world.new_id("req", 14)
        headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION}
        try:
            raw = await _body(request)
            if request.url.path.startswith("/sandbox/"):
                found = await control.handle(self._stripe, request.method, request.url.path, raw)
                return Answer(200, found, headers)
            answer = await self._api(request, raw, request_id)
            answer.headers = headers | answer.headers
            return answer
        except StripeError as e:
            return Answer(e.status, self._error(e, request_id), headers | e.headers)
        except (Cut, NotJson):
            raise
        except Exception as e:  # a bug of the sandbox; said as Stripe says its own
            _log.exception("the embedded Stripe failed at %s %s", request.method, request.url.path)
            self.crashes.append(e)
            return Answer(500, self._error(api_error(f"Sandbox bug: {e!r}"), request_id), headers)

    def _error(self, e: StripeError, request_id: str) -> Obj:
        log_url = f"https://dashboard.stripe.com/test/logs/{request_id}"
        return {"error": {**e.error, "request_log_url": log_url}}

    async def _api(self, request: Request, raw: bytes, request_id: str) -> Answer:
        method, path = request.method, request.url.path
        self._authenticate(request)
        found = match(method, path)
        if found is None:
            raise invalid(
                f"Unrecognized request URL ({method}: {path[:200]}). Please see "
                "https://stripe.com/docs or we can help at https://support.stripe.com/.",
                status=404,
                saved=False,
            )
        operation, ids = found
        fault = self._stripe.faults.take(method, path)
        if fault is not None and fault.kind == "html_error":
            raise NotJson
        if fault is not None and fault.kind in ("rate_limit", "lock_timeout", "forbidden"):
            raise fault.error() or api_error("fault")
        self._limit()
        query = request.scope.get("query_string", b"")
        form = raw if method == "POST" else query + (b"&" + raw if raw else b"")
        if method == "POST" and query:
            form = query + b"&" + raw
        params = operation.check(forms.decode(form))
        call = Call(self._stripe.world, path, ids, params)
        key = request.headers.get("idempotency-key") if method == "POST" else None
        if not key:
            return await self._run(operation, call, fault, request_id, None)
        keys, clock = self._stripe.keys, self._stripe.world.clock
        print_ = (method, path, hashlib.sha256(form).hexdigest())
        kept = keys.begin(
            key, print_, request_id, clock.real(),
            self._stripe.world.settings.idempotency_retention_s,
        )  # fmt: skip
        if kept is not None:
            headers = {
                "Idempotency-Key": key,
                "Idempotent-Replayed": "true",
                "Original-Request": kept.request_id,
            }
            return Answer(kept.status, kept.body or {}, headers)
        try:
            answer = await self._run(operation, call, fault, request_id, key)
        except StripeError as e:
            if e.saved:
                keys.keep(key, e.status, self._error(e, request_id))
            else:
                keys.drop(key)
            raise
        except asyncio.CancelledError:
            keys.drop(key)
            raise
        answer.headers = {"Idempotency-Key": key, "Original-Request": request_id}
        return answer

    async def _run(
        self,
        operation: Operation,
        call: Call,
        fault: Fault | None,
        request_id: str,
        key: str | None,
    ) -> Answer:
        """Executes, with the fault before or after; a cut call's result is kept for its key."""
        if fault is not None and fault.kind in ("slow", "server_error"):
            await asyncio.sleep(fault.delay_s)
        if fault is not None and not fault.after_commit:
            error = fault.error()
            if error is not None:
                raise error
        if fault is not None and fault.cuts and not fault.after_commit:
            if key:
                self._stripe.keys.drop(key)
            await _hold(fault)
        body = self._execute(operation, call, request_id, key)
        if fault is None or not fault.after_commit:
            answer = Answer(200, body, {})
            if key:
                self._stripe.keys.keep(key, 200, body)
            return answer
        error = fault.error()
        if error is not None:
            raise error
        if key:
            self._stripe.keys.keep(key, 200, body)
        await _hold(fault)
        raise Cut

    def _execute(self, operation: Operation, call: Call, request_id: str, key: str | None) -> Obj:
        world = self._stripe.world
        self._stripe.schedule.run_due()
        world.request = RequestInfo(request_id, key)
        try:
            shown = operation.run(call)
            if world.by_id.get(str(shown.get("id"))) is shown:
                shown = view(world, shown)
            return expand(world, shown, call.get("expand") or [])
        finally:
            world.request = None

    def _limit(self) -> None:
        """Stripe's limit of requests a second, when the settings ask for one."""
        allowed = self._stripe.world.settings.requests_per_second
        second = self._stripe.world.clock.real()
        if second != self._second[0]:
            self._second = (second, 0)
        self._second = (second, self._second[1] + 1)
        if allowed and self._second[1] > allowed:
            raise rate_limit("rate_limit", "Request rate limit exceeded.")

    def _authenticate(self, request: Request) -> None:
        header = request.headers.get("authorization", "")
        scheme, _, value = header.partition(" ")
        key: str | None = value.strip() if scheme.lower() == "bearer" else None
        if scheme.lower() == "basic":
            try:
                key = base64.b64decode(value, validate=True).decode("latin-1").partition(":")[0]
            except (binascii.Error, ValueError):
                key = None
        if not key or key != self._stripe.api_key:
            raise authentication(key)
        version = request.headers.get("stripe-version")
        if version is not None and not _VERSION.fullmatch(version):
            raise invalid(f"Invalid Stripe API version: {version[:40]}", saved=False)


async def _body(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY:
            raise invalid("The request body is too large.", status=413, saved=False)
        chunks.append(chunk)
    kind = request.headers.get("content-type", "")
    if size and "json" in kind and not request.url.path.startswith("/sandbox/"):
        raise invalid(
            "Invalid request: this endpoint takes application/x-www-form-urlencoded.", saved=False
        )
    return b"".join(chunks)


async def _hold(fault: Fault) -> None:
    if fault.kind.startswith("timeout"):
        await asyncio.sleep(fault.delay_s or HELD_S)
    raise Cut


async def _cut(send: Send) -> None:
    """An answer that promises a body and never brings it: the server closes the connection."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"1000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
