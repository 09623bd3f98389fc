"""The relay hosts that `relay_host.kind` can name: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httpx

from billing.ports import HostedRelays
from bot.config_relayhost import RelayHostSection
from bot.relayhost.command import RelayCommand
from bot.relayhost.http import Authorize
from bot.relayhost.nip86 import Nip86Relay
from bot.relayhost.zooid import ZooidHost


@dataclass(frozen=True, slots=True)
class Tools:
    """What adapters are built with. `secret_of`: relay id -> the relay's own key (hex)."""

    client: httpx.AsyncClient
    authorize: Authorize
    secret_of: Callable[[str], str]
    sandbox: bool = False


def _zooid(section: RelayHostSection, tools: Tools) -> HostedRelays:
    assert section.zooid.api_url is not None
    return ZooidHost(
        api_url=section.zooid.api_url,
        client=tools.client,
        authorize=tools.authorize,
        secret_of=tools.secret_of,
        probe_url=section.zooid.probe_url,
        url_scheme="ws" if tools.sandbox else "wss",
    )


def _nip86(section: RelayHostSection, tools: Tools) -> HostedRelays:
    assert section.nip86.relay_url is not None
    return Nip86Relay(
        relay_url=section.nip86.relay_url, client=tools.client, authorize=tools.authorize
    )


def _command(section: RelayHostSection, tools: Tools) -> HostedRelays:
    return RelayCommand(
        section.command.argv,
        url_template=section.command.url or "wss://{host}",
        time_limit_s=section.timeout_s,
    )


RELAY_HOSTS: dict[str, Callable[[RelayHostSection, Tools], HostedRelays]] = {
    "zooid": _zooid,
    "nip86": _nip86,
    "command": _command,
}


def build(section: RelayHostSection, tools: Tools) -> HostedRelays:
    """The adapter of a validated configuration; make the client with its `timeout_s`."""
    return RELAY_HOSTS[section.kind](section, tools)
