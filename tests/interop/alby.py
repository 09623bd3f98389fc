"""@getalby/sdk in a Node process beside us: its wallet service over our toy wallet, its client."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

from bot.sandbox.lightning import Connection, Payment, SandboxWallet
from bot.sandbox.lightning.connection import RECEIVE_METHODS
from bot.sandbox.lightning.methods import Body
from bot.sandbox.lightning.model import Request
from bot.sandbox.lightning.perform import Job, perform
from tests.interop.nodepeer import NODE_DIR, require_node

SPEND_METHODS = (*RECEIVE_METHODS, "pay_invoice")
"""Its handler has no get_budget."""

ANSWER_LIMIT_S = 20.0
"""Node takes a second or two to start on a busy machine."""


class NodeLines:
    """A Node script spoken to in JSON lines. Skips the test where there is no Node."""

    def __init__(self, script: str) -> None:
        self._script = script

    async def __aenter__(self) -> NodeLines:
        self._process = await asyncio.create_subprocess_exec(
            require_node(),
            self._script,
            cwd=NODE_DIR,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._process.stdout.read()

    def say(self, line: dict[str, Any]) -> None:
        """One JSON line to the script."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def hear(self) -> dict[str, Any] | None:
        """The script's next line, None at its end."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        return json.loads(line) if line else None

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Say, and hear the answer."""
        self.say({"method": method, "params": params or {}})
        async with asyncio.timeout(ANSWER_LIMIT_S):
            answer = await self.hear()
        assert answer is not None, "the script ended"
        return answer


class AlbyWallet:
    """`NWCWalletService` of @getalby/sdk; only the money behind it is our toy's.

    `async with AlbyWallet(wallet, relay_url) as alby: ... alby.uri`; it may be entered again, as
    the same wallet. `alby.connection.misbehave` works but for forgeries and garbage. The service
    knows no expiration, asks its relay for everything kept there, and remembers nothing.
    """

    def __init__(
        self,
        wallet: SandboxWallet,
        relay_url: str,
        methods: tuple[str, ...] = SPEND_METHODS,
        budget_msat: int | None = None,
    ) -> None:
        token = wallet.network.token_bytes
        self.connection = Connection(wallet, [relay_url], methods=methods, budget_msat=budget_msat)
        self._answering: set[asyncio.Task[None]] = set()
        self._relay_url = relay_url
        self._wallet_secret = token(32)
        self._lines = NodeLines("alby_wallet.mjs")
        self.uri = ""

    async def __aenter__(self) -> AlbyWallet:
        from bot.sandbox.lightning.wire import Keys

        await self._lines.__aenter__()
        pubkey = Keys(self._wallet_secret).public_key
        secret = self.connection.uri.rpartition("secret=")[2]
        relay = quote(self._relay_url, safe="")
        self.uri = f"nostr+walletconnect://{pubkey}?relay={relay}&secret={secret}"
        setup = {
            "relayUrl": self._relay_url,
            "walletSecret": self._wallet_secret.hex(),
            "clientPubkey": self.connection.client_pubkey,
            "methods": list(self.connection.methods),
        }
        self._lines.say(setup)
        async with asyncio.timeout(ANSWER_LIMIT_S):
            assert await self._lines.hear() == {"ready": True}
        self._serving = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._serving.cancel()
        for task in self._answering:
            task.cancel()
        await asyncio.gather(self._serving, *self._answering, return_exceptions=True)
        await self._lines.__aexit__(*exc)

    async def _serve(self) -> None:
        while (asked := await self._lines.hear()) is not None:
            self.connection.requests.append(asked["method"])
            if self.connection.revoked != "silence":
                task = asyncio.create_task(self._answer(asked))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    async def _answer(self, asked: dict[str, Any]) -> None:
        async def send(body: Body | str, *, forged: bool = False) -> None:
            assert isinstance(body, dict)
            assert not forged
            answer = {key: body[key] for key in ("result", "error") if body.get(key) is not None}
            self._lines.say({"id": asked["id"], **answer})

        async def ended(payment: Payment) -> None:
            while payment.state == "in_flight":
                await asyncio.sleep(0.02)

        request = Request(asked["method"], asked["params"], None)
        fault = self.connection.script.take(asked["method"])
        await perform(Job(self.connection, request, send, ended), fault)
