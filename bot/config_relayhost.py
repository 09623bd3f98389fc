"""The section of the configuration that describes what runs the hosted relays."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bot.config_keys import Section, Strings, setting


class ZooidSection(Section):
    """[relay_host.zooid]: a zooid with its management API; the bot's key must be whitelisted."""

    api_url: str | None = setting(
        "The address of its management API, https://…",
        None,
        pattern=r"^https?://[^/\s]+$",
        example="https://api.relays.example.com",
        shown=True,
    )
    domain: str | None = setting(
        "Relays are named <name>.<domain>.",
        None,
        pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)*(:\d+)?$",
        example="relays.example.com",
        shown=True,
    )
    probe_url: str | None = setting(
        "Where a relay's own answer is looked at, when not at its public name: http(s)://…;"
        " the name goes along as Host.",
        None,
        pattern=r"^https?://[^/\s]+$",
        example="http://127.0.0.1:3334",
    )


class Nip86Section(Section):
    """[relay_host.nip86]: one shared relay whose membership is sold."""

    relay_url: str | None = setting(
        "The relay, wss://…", None, pattern=r"^wss?://\S+$", example="wss://relay.example.com"
    )


class CommandSection(Section):
    """[relay_host.command]: a command of yours, fed one JSON object, judged by its exit status."""

    argv: Strings = setting(
        "The command and its arguments.", [], example=["/usr/local/bin/relay-apply"]
    )
    domain: str | None = setting(
        "Relays are named <name>.<domain>.",
        None,
        pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)*(:\d+)?$",
        example="relays.example.com",
    )
    url: str = setting(
        "The public address told to tenants; {host} is <name>.<domain>, {name} the name alone.",
        "wss://{host}",
        pattern=r"^wss?://\S+$",
    )


class RelayHostSection(Section):
    """[relay_host]: what runs the hosted relays."""

    kind: Literal["zooid", "nip86", "command"] = setting(
        "Which of the tables below is used: zooid, nip86 or command.", "zooid"
    )
    timeout_s: int = setting("How long one call to it may take, in seconds.", 15, ge=1, le=300)
    zooid: ZooidSection = Field(default_factory=ZooidSection)
    nip86: Nip86Section = Field(default_factory=Nip86Section)
    command: CommandSection = Field(default_factory=CommandSection)
