"""What an untrusted relay URL may lead to, and what it may not."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from bot.nostr import egress as egress_module
from bot.nostr.addresses import is_public
from bot.nostr.egress import Egress, EgressRefused, Unreachable

PUBLIC = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.15.0.1", "172.32.0.1", "192.0.1.1"]
PUBLIC += ["2606:4700::1111", "2a00::1", "2001:200::1", "::ffff:1.1.1.1"]
_NOT_PUBLIC = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.1.2.3
169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.170 192.0.2.1 192.88.99.1 192.168.1.1
198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1
64:ff9b::7f00:1 64:ff9b::1.1.1.1 64:ff9b:1::1 100::1 2001::1 2001:1ff::1 2001:db8::1 2002:7f00:1::
2002:a00:1:: 3fff::1 fc00::1 fd00::1 fe80::1 fe80::1%lo fec0::1 ff02::1 5f00::1 1::1
localhost 1 127.1 0x7f000001
"""


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", _NOT_PUBLIC.split())
def test_not_public(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses(network="127.0.0.0/8"))
def test_loopback_is_never_public_in_any_form(address: Any) -> None:
    assert not is_public(str(address))
    assert not is_public(f"::ffff:{address}")


class Names:
    """A resolver with fixed answers; counts what it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        if not self.addresses:
            raise socket.gaierror(-2, "unknown")
        return self.addresses


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Which addresses would have been connected to."""
    calls: list[tuple[str, ...]] = []

    async def tcp(addresses: Sequence[str], port: int) -> socket.socket:
        calls.append(tuple(addresses))
        raise Unreachable("no address of it takes a TCP connection")

    monkeypatch.setattr(egress_module, "_tcp", tcp)
    return calls


async def test_one_bad_address_spoils_the_name(dialled: list[tuple[str, ...]]) -> None:
    """CVE-2025-32013 (LNbits): a stranger's URL led into the operator's own network."""
    for addresses in [("127.0.0.1",), ("1.1.1.1", "10.0.0.1"), ("2606:4700::1111", "::1")]:
        with pytest.raises(EgressRefused, match="not public"):
            await Egress(resolver=Names(*addresses)).connect("wss://relay.example")
    assert dialled == []
    with pytest.raises(Unreachable, match="TCP"):
        await Egress(resolver=Names("1.1.1.1", "1.0.0.1")).connect("wss://relay.example")
    assert dialled == [("1.1.1.1", "1.0.0.1")]


@pytest.mark.parametrize(
    "url",
    [
        "ws://relay.example",
        "http://relay.example",
        "wss://user:password@relay.example",
        "wss://user@relay.example",
        "wss://" + "a" * 300 + ".example",
        "wss://relay.example/" + "a" * 300,
        "wss://relay.example\n.evil",
        "wss:///nohost",
        "wss://relay.example:0",
        "wss://relay.example:99999",
        "file:///etc/passwd",
        "",
    ],
)
async def test_urls_that_are_not_even_resolved(url: str, dialled: list[tuple[str, ...]]) -> None:
    names = Names("1.1.1.1")
    with pytest.raises(EgressRefused) as refused:
        await Egress(resolver=names).connect(url)
    assert "password" not in str(refused.value) or "user, password" in str(refused.value)
    assert names.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "2130706433", "0x7f.1"])
async def test_loopback_in_any_spelling_is_refused_after_the_systems_resolver(
    host: str, dialled: list[tuple[str, ...]]
) -> None:
    with pytest.raises((EgressRefused, Unreachable)):
        await Egress().connect(f"wss://{host}")
    assert dialled == []


async def test_trusted_and_sandbox_may_reach_loopback(dialled: list[tuple[str, ...]]) -> None:
    with pytest.raises(Unreachable):
        await Egress(resolver=Names("127.0.0.1")).connect("ws://relay.local", trusted=True)
    with pytest.raises(Unreachable):
        await Egress(allow_private=True, resolver=Names("::1")).connect("ws://relay.local")
    assert dialled == [("127.0.0.1",), ("::1",)]


async def test_a_name_without_an_address_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="no address"):
        await Egress(resolver=Names()).connect("wss://relay.example")


async def test_the_name_is_resolved_once_and_that_address_is_used() -> None:
    """A second answer of the name server (DNS rebinding) is never asked for."""
    async with Server() as server:
        names = Names("127.0.0.1")
        egress = Egress(allow_private=True, resolver=names)
        socket_ = await egress.connect(f"ws://rebinding.example:{server.port}/path?x=1")
        assert server.paths == ["/path?x=1"]
        assert server.hosts == [f"rebinding.example:{server.port}"]
        await socket_.close()
    assert names.asked == [("rebinding.example", server.port)]


class Server:
    """A WebSocket server whose answers can be replaced."""

    def __init__(self, response: tuple[int, str] | None = None, tls: Any = None) -> None:
        self.response = response
        self.paths: list[str] = []
        self.hosts: list[str] = []
        self.extensions: list[str | None] = []
        self._tls = tls

    def _process(self, connection: ServerConnection, request: Request) -> Response | None:
        self.paths.append(request.path)
        self.hosts.append(request.headers["Host"])
        self.extensions.append(request.headers.get("Sec-WebSocket-Extensions"))
        if self.response is None:
            return None
        status, location = self.response
        answer = connection.respond(status, "elsewhere")
        answer.headers["Location"] = location
        return answer

    async def _serve(self, connection: ServerConnection) -> None:
        try:
            await connection.send("x" * 300_000)
            await connection.wait_closed()
        except ConnectionClosed:
            pass

    async def __aenter__(self) -> Server:
        self._server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._process, ssl=self._tls
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await self._server.wait_closed()


async def test_redirects_are_an_answer_not_a_direction() -> None:
    async with Server() as inner, Server((302, f"ws://127.0.0.1:{inner.port}/")) as outer:
        with pytest.raises(Unreachable, match="HTTP 302"):
            await Egress(allow_private=True).connect(f"ws://127.0.0.1:{outer.port}")
        assert inner.paths == []


async def test_huge_messages_end_the_socket_and_compression_is_not_offered() -> None:
    async with Server() as server:
        socket_ = await Egress(allow_private=True).connect(f"ws://127.0.0.1:{server.port}")
        with pytest.raises(ConnectionClosed):
            await socket_.recv()
        assert server.extensions == [None]


async def test_a_peer_that_never_answers_the_handshake_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(egress_module, "HANDSHAKE_S", 0.05)
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, w: writers.append(w), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(Unreachable, match="no WebSocket within"):
        await Egress(allow_private=True).connect(f"ws://127.0.0.1:{port}")
    for writer in writers:
        writer.close()
    server.close()
    await server.wait_closed()


async def test_a_peer_that_speaks_something_else_is_unreachable() -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n" * 10)
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(Unreachable, match="no WebSocket"):
        await Egress(allow_private=True).connect(f"ws://127.0.0.1:{port}")
    server.close()
    await server.wait_closed()


async def test_a_resolver_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_module, "CONNECT_S", 0.05)

    async def hang(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return []

    with pytest.raises(Unreachable, match="no TCP connection within"):
        await Egress(resolver=hang).connect("wss://relay.example")


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_file, certificate_file = folder / "key.pem", folder / "cert.pem"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key_file, certificate_file


async def test_names_that_hang_do_not_hold_up_the_operators(
    monkeypatch: pytest.MonkeyPatch, dialled: list[tuple[str, ...]]
) -> None:
    monkeypatch.setattr(egress_module, "CONNECT_S", 0.03)
    end = asyncio.Event()
    asked: list[str] = []

    async def slow(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        if host.startswith("slow"):
            await end.wait()
        return ["1.1.1.1"]

    egress = Egress(resolver=slow)
    for number in range(egress_module.MAX_LOOKUPS + 3):
        with pytest.raises(Unreachable):
            await egress.connect(f"wss://slow{number}.example")
    assert len(asked) == egress_module.MAX_LOOKUPS  # threads would still be busy with these
    with pytest.raises(Unreachable):
        await egress.connect("wss://configured.example", trusted=True)
    assert dialled == [("1.1.1.1",)]
    end.set()
    await asyncio.sleep(0)
    with pytest.raises(Unreachable):
        await egress.connect("wss://again.example")
    assert len(dialled) == 2


@pytest.fixture
async def tls_server(tmp_path: Path) -> AsyncIterator[tuple[Server, Path]]:
    key, cert = self_signed(tmp_path, "relay.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    async with Server(tls=context) as server:
        yield server, cert


async def test_tls_is_checked_against_the_name_not_the_address(
    tls_server: tuple[Server, Path],
) -> None:
    server, cert = tls_server
    trusting = ssl.create_default_context(cafile=str(cert))
    egress = Egress(allow_private=True, resolver=Names("127.0.0.1"), tls=trusting)
    socket_ = await egress.connect(f"wss://relay.example:{server.port}")
    await socket_.close()
    with pytest.raises(Unreachable, match="TLS failed"):
        await egress.connect(f"wss://other.example:{server.port}")
    with pytest.raises(Unreachable, match="TLS failed"):
        plain = Egress(allow_private=True, resolver=Names("127.0.0.1"))
        await plain.connect(f"wss://relay.example:{server.port}")
