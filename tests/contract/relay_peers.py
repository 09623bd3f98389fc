"""The other sides of the relay host adapters: a zooid-like host, a NIP-86 relay, a command."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from billing.ports import DesiredRelay, HostedRelays, RelayRefused, RelayUnreachable
from bot.relayhost import nip11
from bot.relayhost.command import RelayCommand
from bot.relayhost.http import Authorize, new_client
from bot.relayhost.nip86 import Nip86Relay
from bot.relayhost.zooid import ZooidHost, derived_secrets
from bot.sandbox.lightning.wire import Keys, read_event
from bot.sandbox.loopback import LoopbackServer
from bot.sandbox.relay_host import RelayHost
from tests.fakes.hosted_relays import FakeHostedRelays

KEYS = Keys(b"\x11" * 32)
STRANGER = Keys(b"\x22" * 32)
OWNER = Keys(b"\x33" * 32).public_key
FAST = (0.0, 0.01, 0.01)


def desired(relay_id: str = "relay_1", *, active: bool = True, **changes: Any) -> DesiredRelay:
    """A relay as billing would want it."""
    values: dict[str, Any] = {
        "relay_id": relay_id,
        "name": "Reef",
        "host": f"{relay_id.replace('_', '-')}.relays.test",
        "owner_pubkey": OWNER,
        "plan": "basic",
        "active": active,
        "limited": False,
        "settings": {},
    }
    return DesiredRelay(**(values | changes))


def signer(keys: Keys = KEYS, *, skew_s: int = 0, **overrides: str) -> Authorize:
    """NIP-98 headers, perhaps with a tag or the time wrong."""

    def authorize(url: str, method: str, body: bytes) -> str:
        tags = {"u": url, "method": method}
        if body:
            tags["payload"] = hashlib.sha256(body).hexdigest()
        tags |= overrides
        event = keys.sign(27235, "", [[k, v] for k, v in tags.items()], int(time.time()) + skew_s)
        return "Nostr " + base64.b64encode(json.dumps(dict(event.raw)).encode()).decode()

    return authorize


@dataclass
class Side:
    """One adapter with its peer: `is_up` looks from outside."""

    adapter: HostedRelays
    is_up: Callable[[DesiredRelay], Any]
    vanish: Callable[[], Any]
    """The host goes away."""
    refuse: Callable[[], Any]
    """The host no longer lets us in."""


@asynccontextmanager
async def fake_side() -> AsyncIterator[Side]:
    fake = FakeHostedRelays()

    async def is_up(relay: DesiredRelay) -> bool:
        return fake.is_up(relay.relay_id)

    async def vanish() -> None:
        fake.script.append(RelayUnreachable("gone"))
        fake.problems.append("gone")

    async def refuse() -> None:
        fake.script.append(RelayRefused("no", permanent=False))
        fake.problems.append("no")

    yield Side(fake, is_up, vanish, refuse)


def zooid_adapter(host: RelayHost, client: httpx.AsyncClient, **options: Any) -> ZooidHost:
    values: dict[str, Any] = {
        "api_url": host.api_url,
        "client": client,
        "authorize": signer(),
        "secret_of": derived_secrets(b"master"),
        "probe_url": host.api_url,
        "url_scheme": "ws",
        "probe_delays_s": FAST,
    }
    return ZooidHost(**(values | options))


@asynccontextmanager
async def zooid_side() -> AsyncIterator[Side]:
    async with RelayHost([KEYS.public_key]) as host, new_client() as client:

        async def is_up(relay: DesiredRelay) -> bool:
            return isinstance(await nip11.probe(client, host.api_url, relay.host), nip11.Up)

        async def refuse() -> None:
            host.whitelist.clear()

        yield Side(zooid_adapter(host, client), is_up, host.stop, refuse)


class Nip86Peer:
    """A relay that is managed by NIP-86. `style`: members as objects (the NIP) or strings."""

    def __init__(self) -> None:
        self.members: set[str] = set()
        self.owner = KEYS.public_key
        self.style = "objects"
        self.methods = ["supportedmethods", "allowpubkey", "unallowpubkey", "listallowedpubkeys"]
        self.forgets = False
        self.calls: list[str] = []
        routes = [Route("/", self._answer, methods=["GET", "POST"])]
        self.server = LoopbackServer(Starlette(routes=routes))

    async def _answer(self, request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse({"name": "shared"})
        body = await request.body()
        header = request.headers.get("authorization", "").removeprefix("Nostr ")
        event = read_event(json.loads(base64.b64decode(header)))
        assert event is not None
        assert request.headers["content-type"] == "application/nostr+json+rpc"
        assert event.first_tag("payload") == hashlib.sha256(body).hexdigest()
        assert (event.first_tag("u") or "").startswith(self.server.url)
        if event.pubkey != self.owner:
            return JSONResponse({"error": "not yours"}, 401)
        asked = json.loads(body)
        self.calls.append(asked["method"])
        match asked["method"], asked["params"]:
            case "supportedmethods", _:
                return JSONResponse({"result": self.methods})
            case "allowpubkey", [key, *_]:
                if not self.forgets:
                    self.members.add(key)
            case "unallowpubkey", [key, *_]:
                self.members.discard(key)
            case "listallowedpubkeys", _:
                listed: list[Any] = sorted(self.members)
                if self.style == "objects":
                    listed = [{"pubkey": key, "reason": ""} for key in listed]
                return JSONResponse({"result": listed})
        return JSONResponse({"result": True})


@asynccontextmanager
async def nip86_side(peer: Nip86Peer | None = None) -> AsyncIterator[Side]:
    peer = peer or Nip86Peer()
    await peer.server.start()
    try:
        async with new_client() as client:

            async def is_up(relay: DesiredRelay) -> bool:
                return relay.owner_pubkey in peer.members

            async def refuse() -> None:
                peer.owner = STRANGER.public_key

            url = peer.server.url.replace("http", "ws", 1)
            adapter = Nip86Relay(relay_url=url, client=client, authorize=signer())
            yield Side(adapter, is_up, peer.server.stop, refuse)
    finally:
        await peer.server.stop()


SCRIPT = """
import json, pathlib, sys
state = pathlib.Path(sys.argv[1])
asked = json.load(sys.stdin)
if (state / "refuse").exists():
    print("not allowed")
    sys.exit(1)
if (state / "gone").exists():
    sys.exit(75)
if asked["action"] == "apply":
    mark = state / asked["relay_id"]
    mark.touch() if asked["active"] else mark.unlink(missing_ok=True)
"""


@asynccontextmanager
async def command_side(folder: Path) -> AsyncIterator[Side]:
    script = folder / "switch.py"
    script.write_text(SCRIPT)
    state = folder / "state"
    state.mkdir()

    async def is_up(relay: DesiredRelay) -> bool:
        return (state / relay.relay_id).exists()

    async def vanish() -> None:
        (state / "gone").touch()

    async def refuse() -> None:
        (state / "refuse").touch()

    adapter = RelayCommand([sys.executable, "-S", str(script), str(state)])
    yield Side(adapter, is_up, vanish, refuse)
