"""What only zooid does: writes that take effect later or never, secrets, merges, NIP-98 checks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from billing.ports import RelayApplied, RelayRefused, RelayUnreachable
from bot.nostr.keys import Keys
from bot.relayhost.http import new_client, nip98_authorize
from bot.relayhost.zooid import LIMITED_NOTICE, derived_secrets, schema_of
from bot.sandbox.relay_host import MAX_BODY_BYTES, RelayHost, merge
from tests.contract.relay_peers import KEYS, STRANGER, desired, signer, zooid_adapter


@pytest.fixture
async def host() -> AsyncIterator[RelayHost]:
    async with RelayHost([KEYS.public_key]) as host:
        yield host


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with new_client() as client:
        yield client


async def test_secret_travels_on_creation_only(host: RelayHost, client: httpx.AsyncClient) -> None:
    sent: list[tuple[str, dict[str, Any]]] = []

    def watching(url: str, method: str, body: bytes) -> str:
        sent.append((method, json.loads(body)))
        return signer()(url, method, body)

    adapter = zooid_adapter(host, client, authorize=watching)
    await adapter.apply(desired())
    await adapter.apply(desired(name="Atoll"))
    assert [(method, "secret" in body) for method, body in sent] == [
        ("PATCH", False),
        ("POST", True),
        ("PATCH", False),
    ]
    assert host.configs["relay_1"]["secret"] == derived_secrets(b"master")("relay_1")
    assert host.configs["relay_1"]["info"]["name"] == "Atoll"


async def test_failed_reload_is_written_again(host: RelayHost, client: httpx.AsyncClient) -> None:
    host.fail_reloads(1)
    assert await zooid_adapter(host, client).apply(desired()) == RelayApplied()
    assert [method for method, _ in host.calls] == ["PATCH", "POST", "PATCH"]


async def test_write_that_never_takes_effect_is_no_success(
    host: RelayHost, client: httpx.AsyncClient
) -> None:
    adapter = zooid_adapter(host, client)
    await adapter.apply(desired())
    host.hold_reloads = True
    for change in (desired(active=False), desired(name="Atoll"), desired(limited=True)):
        assert isinstance(await adapter.apply(change), RelayUnreachable)
    host.reload()
    assert await adapter.apply(desired(limited=True)) == RelayApplied()


async def test_slow_watcher_is_waited_for(client: httpx.AsyncClient) -> None:
    async with RelayHost([KEYS.public_key], reload_delay_s=0.05) as host:
        adapter = zooid_adapter(host, client, probe_delays_s=(0.0, 0.02, 0.2))
        assert await adapter.apply(desired()) == RelayApplied()
        assert [method for method, _ in host.calls] == ["PATCH", "POST"]


async def test_limits_softly_and_restores_the_plan(
    host: RelayHost, client: httpx.AsyncClient
) -> None:
    adapter = zooid_adapter(host, client)
    settings = {
        "blossom": {"enabled": True},
        "policy": {"public_join": True, "strip_signatures": False},
        "info": {"description": "a reef"},
    }
    await adapter.apply(desired(settings=settings))
    plain = json.loads(json.dumps(host.configs["relay_1"]))
    await adapter.apply(desired(settings=settings, limited=True))
    limited = host.configs["relay_1"]
    assert limited["blossom"]["enabled"] is limited["policy"]["public_join"] is False
    assert limited["roles"]["member"]["can_invite"] is limited["push"]["enabled"] is False
    assert limited["info"]["description"] == LIMITED_NOTICE
    await adapter.apply(desired(settings=settings))
    restored = host.configs["relay_1"]
    assert restored["blossom"] == plain["blossom"] == {"enabled": True}
    assert restored["policy"] == settings["policy"]
    assert not restored["push"]
    assert not restored["roles"]["member"]
    assert restored["info"]["description"] == "a reef"
    assert settings["blossom"] == {"enabled": True}, "the plan itself is not written to"


async def test_our_own_signatures_are_taken(host: RelayHost, client: httpx.AsyncClient) -> None:
    authorize = nip98_authorize(Keys(b"\x11" * 32), lambda: int(time.time()))
    adapter = zooid_adapter(host, client, authorize=authorize)
    assert await adapter.check() == []
    assert await adapter.apply(desired()) == RelayApplied()


async def test_name_of_another_relay_is_a_permanent_refusal(
    host: RelayHost, client: httpx.AsyncClient
) -> None:
    adapter = zooid_adapter(host, client)
    await adapter.apply(desired("relay_1", host="reef.relays.test"))
    answer = await adapter.apply(desired("relay_2", host="reef.relays.test"))
    assert isinstance(answer, RelayRefused)
    assert answer.permanent
    assert "host already exists" in answer.reason


async def test_invalid_settings_are_a_permanent_refusal(
    host: RelayHost, client: httpx.AsyncClient
) -> None:
    answer = await zooid_adapter(host, client).apply(desired(host=""))
    assert isinstance(answer, RelayRefused)
    assert answer.permanent


async def test_check_says_what_is_wrong_with_the_key(
    host: RelayHost, client: httpx.AsyncClient
) -> None:
    stranger = zooid_adapter(host, client, authorize=signer(STRANGER))
    assert "API_WHITELIST" in (await stranger.check())[0]
    late = zooid_adapter(host, client, authorize=signer(skew_s=-120))
    assert "signature is refused" in (await late.check())[0]


async def test_host_that_talks_without_end_is_cut_off(client: httpx.AsyncClient) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")
            while True:
                writer.write(b"x" * 65_536)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with RelayHost([KEYS.public_key]) as host:
        adapter = zooid_adapter(host, client, api_url=f"http://127.0.0.1:{port}")
        answer = await adapter.apply(desired())
    server.close()
    assert isinstance(answer, RelayUnreachable)
    assert "larger than" in answer.reason


@pytest.mark.parametrize(
    ("relay_id", "schema"), [("relay_1", "relay_1"), ("Reef-1", "reef_1"), ("1reef", "r_1reef")]
)
def test_schema_is_one_that_zooid_takes(relay_id: str, schema: str) -> None:
    assert schema_of(relay_id) == schema


def test_derived_secrets_differ_and_stay() -> None:
    secret_of = derived_secrets(b"k")
    assert secret_of("a") == derived_secrets(b"k")("a")
    assert len({secret_of("a"), secret_of("b"), derived_secrets(b"l")("a")}) == 3
    assert len(secret_of("a")) == 64


# --- the sandbox host itself ---------------------------------------------------------------------


CONFIG = {"host": "a.test", "schema": "a", "secret": "ab" * 32}


@pytest.mark.parametrize(
    ("authorize", "status"),
    [
        (signer(), 201),
        (signer(skew_s=50), 201),
        (signer(skew_s=90), 401),
        (signer(skew_s=-90), 401),
        (signer(u="http://127.0.0.1/relay/a"), 401),
        (signer(method="GET"), 401),
        (signer(payload="00" * 32), 401),
        (signer(STRANGER), 403),
        (signer(STRANGER, method="GET"), 401),
        (lambda *_: "Bearer x", 401),
        (lambda *_: "Nostr %%%", 401),
        (lambda *_: "Nostr e30=", 401),
    ],
)
async def test_host_checks_nip98(
    host: RelayHost, client: httpx.AsyncClient, authorize: Any, status: int
) -> None:
    url = f"{host.api_url}/relay/a"
    body = json.dumps(CONFIG).encode()
    headers = {"Authorization": authorize(url, "POST", body)}
    answer = await client.post(url, content=body, headers=headers)
    assert answer.status_code == status
    assert set(answer.json()) == ({"message"} if status == 201 else {"error"})


async def test_host_answers_as_zooid_documents(host: RelayHost, client: httpx.AsyncClient) -> None:
    async def send(method: str, relay_id: str, body: Any) -> int:
        url = f"{host.api_url}/relay/{relay_id}"
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": signer()(url, method, raw)}
        return (await client.request(method, url, content=raw, headers=headers)).status_code

    assert await send("PATCH", "a", CONFIG) == 404
    assert await send("PUT", "a", CONFIG) == 404
    assert await send("DELETE", "a", b"") == 404
    assert await send("POST", "a", b"{") == 400
    assert await send("POST", "a", CONFIG | {"schema": "Bad-1"}) == 400
    assert await send("POST", "a", b" " * (MAX_BODY_BYTES + 1)) == 400
    assert await send("POST", "a", CONFIG) == 201
    assert await send("POST", "a", CONFIG) == 409
    assert await send("POST", "b", CONFIG | {"host": "b.test"}) == 409
    assert await send("POST", "b", CONFIG | {"schema": "b"}) == 409
    assert await send("PATCH", "a", {"schema": "c"}) == 400
    assert await send("PUT", "a", CONFIG | {"inactive": True}) == 200
    seen = await client.get(host.api_url, headers={"Host": "a.test"})
    assert (seen.status_code, seen.content) == (404, b"")
    assert await send("PATCH", "a", {"inactive": None}) == 200
    members = f"{host.api_url}/relay/a/members"
    headers = {"Authorization": signer()(members, "GET", b"")}
    assert (await client.get(members, headers=headers)).json() == {"members": []}
    accept = {"Host": "a.test", "Accept": "application/nostr+json"}
    assert (await client.get(host.api_url, headers=accept)).status_code == 200
    assert await send("DELETE", "a", b"") == 200
    assert (await client.get(host.api_url, headers=accept)).status_code == 404


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        # The examples of RFC 7396, appendix A.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_is_rfc_7396(target: Any, patch: Any, merged: Any) -> None:
    assert merge(target, patch) == merged
