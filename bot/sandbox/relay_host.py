"""A zooid-like relay host on loopback: its management API, and its relays' NIP-11.

One port serves everything, told apart by the Host header as zooid does: the management API under
the server's own address, each hosted relay under its configured `host`. A write answers 200 when
"the file is written"; it becomes effective after `reload_delay_s`, unless that reload fails.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bot.sandbox.lightning import wire
from bot.sandbox.lightning.wire import Event
from bot.sandbox.loopback import LoopbackServer

NIP98_KIND = 27235
NIP98_WINDOW_S = 60
MAX_BODY_BYTES = 1024 * 1024
SCHEMA = re.compile(r"^[a-z_][a-z0-9_]*$")
HEX_KEY = re.compile(r"^[0-9a-f]{64}$")


class ApiError(Exception):
    """Answered as `{"error": message}`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class RelayHost:
    """`host = RelayHost(whitelist=[hex pubkey])`, `await host.start()`, `host.api_url`.

    `configs` is what is written, `effective` what is served. Faults: `fail_reloads(n)` loses the
    next n reloads (the relay is down until written again), `hold_reloads` keeps writes from taking
    effect until `reload()`.
    """

    def __init__(
        self,
        whitelist: Iterable[str],
        *,
        port: int = 0,
        clock: Callable[[], int] = lambda: int(time.time()),
        reload_delay_s: float = 0.0,
    ) -> None:
        self.whitelist = set(whitelist)
        self.configs: dict[str, dict[str, Any]] = {}
        self.effective: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        """(method, relay id) of every authorised call."""
        self.hold_reloads = False
        self._failing_reloads = 0
        self._clock = clock
        self._reload_delay_s = reload_delay_s
        self._timers: set[asyncio.TimerHandle] = set()
        routes = [
            Route("/relay/{id}/members", self._members, methods=["GET"]),
            Route("/relay/{id}", self._manage, methods=["POST", "PUT", "PATCH", "DELETE"]),
            Route("/{path:path}", self._hosted),
        ]
        self._server = LoopbackServer(Starlette(routes=routes), port)

    @property
    def api_url(self) -> str:
        """Base URL of the management API; also where hosted relays answer by Host header."""
        return self._server.url

    async def start(self) -> RelayHost:
        """Listen on loopback."""
        await self._server.start()
        return self

    async def stop(self) -> None:
        """Close; the configurations stay."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        await self._server.stop()

    async def __aenter__(self) -> RelayHost:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # --- faults and reloading --------------------------------------------------------------------

    def fail_reloads(self, count: int = 1) -> None:
        """The next reloads fail: the relay is down and stays down until it is written again."""
        self._failing_reloads += count

    def reload(self) -> None:
        """Everything written takes effect now."""
        for relay_id in self.configs:
            self._take_effect(relay_id)

    def _written(self, relay_id: str) -> None:
        if self._failing_reloads > 0:
            self._failing_reloads -= 1
            self.effective.pop(relay_id, None)
        elif self.hold_reloads:
            return
        elif self._reload_delay_s > 0:
            loop = asyncio.get_running_loop()
            self._timers.add(loop.call_later(self._reload_delay_s, self._take_effect, relay_id))
        else:
            self._take_effect(relay_id)

    def _take_effect(self, relay_id: str) -> None:
        if relay_id in self.configs:
            self.effective[relay_id] = json.loads(json.dumps(self.configs[relay_id]))
        else:
            self.effective.pop(relay_id, None)

    # --- management API --------------------------------------------------------------------------

    async def _manage(self, request: Request) -> Response:
        try:
            body = await self._authorised_body(request)
            relay_id = request.path_params["id"]
            self.calls.append((request.method, relay_id))
            status, message = self._act(request.method, relay_id, body)
        except ApiError as error:
            return JSONResponse({"error": error.message}, error.status)
        return JSONResponse({"message": message}, status)

    async def _members(self, request: Request) -> Response:
        try:
            await self._authorised_body(request)
            if request.path_params["id"] not in self.configs:
                raise ApiError(404, "relay not found")
        except ApiError as error:
            return JSONResponse({"error": error.message}, error.status)
        return JSONResponse({"members": []})

    async def _authorised_body(self, request: Request) -> bytes:
        if request.headers.get("host") != self.api_url.removeprefix("http://"):
            raise ApiError(404, "not found")
        body = await request.body()
        caller = self._caller(request, body)
        if caller not in self.whitelist:
            raise ApiError(403, "forbidden")
        if len(body) > MAX_BODY_BYTES:
            raise ApiError(400, "request body too large")
        return body

    def _caller(self, request: Request, body: bytes) -> str:
        """The pubkey behind the NIP-98 header. Raises ApiError 401."""
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme != "Nostr":
            raise ApiError(401, "missing nostr authorization")
        try:
            event = wire.read_event(json.loads(base64.b64decode(encoded, validate=True)))
        except ValueError:
            event = None
        if event is None:
            raise ApiError(401, "invalid authorization event")
        url = f"{self.api_url}{request.url.path}"
        self._check_nip98(event, url, request.method, body)
        return event.pubkey

    def _check_nip98(self, event: Event, url: str, method: str, body: bytes) -> None:
        payload = event.first_tag("payload")
        wrong = None
        if event.kind != NIP98_KIND:
            wrong = "kind"
        elif abs(event.created_at - self._clock()) > NIP98_WINDOW_S:
            wrong = "created_at"
        elif event.first_tag("u") != url:
            wrong = "u"
        elif event.first_tag("method") != method:
            wrong = "method"
        elif payload is not None and payload != hashlib.sha256(body).hexdigest():
            wrong = "payload"
        if wrong:
            raise ApiError(401, f"invalid authorization event: {wrong}")

    def _act(self, method: str, relay_id: str, body: bytes) -> tuple[int, str]:
        known = relay_id in self.configs
        if method == "POST" and known:
            raise ApiError(409, "relay id already exists")
        if method != "POST" and not known:
            raise ApiError(404, "relay not found")
        if method == "DELETE":
            del self.configs[relay_id]
            self._written(relay_id)
            return 200, "relay deleted"
        config = _parse(body)
        if method == "PATCH":
            config = merge(self.configs[relay_id], config)
        self._validate(relay_id, config)
        self.configs[relay_id] = config
        self._written(relay_id)
        return (201, "relay created") if method == "POST" else (200, "relay updated")

    def _validate(self, relay_id: str, config: dict[str, Any]) -> None:
        host, schema = config.get("host"), config.get("schema")
        if not isinstance(host, str) or not host:
            raise ApiError(400, "host is required")
        if not isinstance(schema, str) or not SCHEMA.match(schema):
            raise ApiError(400, "schema is invalid")
        if not HEX_KEY.match(str(config.get("secret", ""))):
            raise ApiError(400, "secret is invalid")
        before = self.configs.get(relay_id)
        if before is not None and before["schema"] != schema:
            raise ApiError(400, "schema cannot be changed")
        for other_id, other in self.configs.items():
            if other_id == relay_id:
                continue
            if other["schema"] == schema:
                raise ApiError(409, "schema already exists")
            if other["host"] == host:
                raise ApiError(409, "host already exists")

    # --- the hosted relays -----------------------------------------------------------------------

    async def _hosted(self, request: Request) -> Response:
        name = request.headers.get("host", "").rsplit(":", 1)[0]
        config = next(
            (c for c in self.effective.values() if c["host"].rsplit(":", 1)[0] == name), None
        )
        if config is None or config.get("inactive"):
            return Response(status_code=404)
        if "application/nostr+json" not in request.headers.get("accept", ""):
            return Response("a relay", media_type="text/plain")
        info = config.get("info") or {}
        document = {
            "name": info.get("name", ""),
            "description": info.get("description", ""),
            "icon": info.get("icon", ""),
            "pubkey": info.get("pubkey", ""),
            "software": "sandbox relay host",
            "supported_nips": [1, 11, 42, 86],
        }
        return JSONResponse(document, media_type="application/nostr+json")


def _parse(body: bytes) -> dict[str, Any]:
    try:
        config = json.loads(body)
    except ValueError:
        raise ApiError(400, "invalid JSON") from None
    if not isinstance(config, dict):
        raise ApiError(400, "invalid JSON")
    return config


def merge(target: object, patch: object) -> Any:
    """RFC 7396: null deletes, objects merge, everything else (arrays too) is replaced whole."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged
