"""The sections of the configuration that describe Purser itself and those who talk to it."""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr

from bot.config_keys import Secrets, Section, Strings, setting


class BotSection(Section):
    """[bot]: who the bot is on Nostr, and where it keeps things."""

    name: str = setting("The name in the bot's profile.", "Purser", min_length=1, max_length=64)
    about: str = setting(
        "What the profile says about the bot.",
        "I keep the accounts of this relay host. Write me: help",
        max_length=500,
    )
    key: SecretStr | None = setting(
        "The bot's secret key, an nsec1…; better in key_file.", None, example="nsec1..."
    )
    key_file: str | None = setting(
        "A file with the bot's nsec1…, readable by its owner only.",
        None,
        example="secrets/bot.nsec",
        shown=True,
    )
    vault_keys: Secrets = setting(
        "Keys that encrypt secrets in the database, 64 hex digits each; better in vault_key_files.",
        [],
        example=["00ff..."],
    )
    vault_key_files: Strings = setting(
        "Files with one key of 64 hex digits each; the first encrypts, all decrypt.",
        [],
        example=["secrets/vault.key"],
        shown=True,
    )
    relays: Strings = setting(
        "The relays where the bot reads its messages, 1 to 5 addresses wss://…",
        example=["wss://relay.example.com"],
        min_length=1,
        max_length=5,
    )
    indexer_relays: Strings = setting(
        "Relays asked where somebody reads messages, at most 10 addresses wss://…",
        ["wss://purplepag.es", "wss://relay.damus.io", "wss://relay.primal.net"],
        max_length=10,
    )
    operators: Strings = setting(
        "Who is told of trouble by direct message: a list of npub1…",
        example=["npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"],
        min_length=1,
    )
    data_dir: str = setting(
        "The directory of the database, the lock and the control socket.", "/var/lib/purser"
    )


class StoreSection(Section):
    """[store]: where the accounts are kept."""

    url: SecretStr | None = setting(
        "postgresql://… or sqlite:///path; without it, purser.sqlite in bot.data_dir.",
        None,
        example="postgresql://purser@localhost/purser",
    )
    url_file: str | None = setting(
        "A file with that address, when it holds a password.", None, example="secrets/store.url"
    )
    keep_events_days: int = setting(
        "Days that Stripe's events are kept once handled; at least 35, since Stripe repeats an"
        " event for up to 30.",
        90,
        ge=35,
    )
    keep_rejected_days: int = setting(
        "Days that the trace of a webhook that was not believed is kept.", 7, ge=1, le=90
    )


class HttpSection(Section):
    """[http]: where Stripe's webhooks arrive, and health and metrics are read."""

    host: str = setting("The address to listen on.", "127.0.0.1", min_length=1)
    port: int = setting("The port to listen on; 0 lets the system choose.", 8080, ge=0, le=65535)
    public_url: str | None = setting(
        "How the outside reaches this server, https://…; `purser check` compares it with Stripe's.",
        None,
        pattern=r"^https?://[^/\s]+",
        example="https://billing.example.com",
    )
    trusted_proxies: Strings = setting(
        "Addresses of proxies whose X-Forwarded-For is believed.",
        ["127.0.0.1", "::1"],
    )


class RegistrationSection(Section):
    """[registration]: who may become a tenant, and how much may be asked before paying."""

    mode: Literal["open", "allowlist"] = setting(
        '"open" for everybody, "allowlist" for those in registration.allow.', "open"
    )
    allow: Strings = setting(
        "Who may register when mode is allowlist: a list of npub1…",
        [],
        example=["npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"],
    )
    max_unpaid_relays: int = setting("Unpaid relays that one tenant may have.", 3, ge=1, le=100)
    unpaid_expires_s: int = setting(
        "An order nobody paid is forgotten after this time, in seconds (at most 23 hours).",
        82_800,
        ge=3600,
        le=82_800,
    )
    messages_per_minute: int = setting(
        "Messages answered per sender and minute; more are left unread.", 20, ge=1, le=600
    )


class SubscriptionsSection(Section):
    """[subscriptions]: when what was ordered comes up, and how a subscription ends."""

    provision: Literal["paid", "good_standing"] = setting(
        '"paid": additions and upgrades apply when their invoice is paid; "good_standing": at once'
        " for who owes nothing, the price on the next invoice.",
        "paid",
    )
    stop: Literal["period_end", "now_with_credit"] = setting(
        'Stopping the last paid relay ends the subscription with its period ("period_end") or now,'
        ' with credit for what was paid and not used ("now_with_credit").',
        "period_end",
    )


class LogsSection(Section):
    """[logs]: what is written to standard error."""

    format: Literal["json", "console"] = setting(
        '"json" for machines, "console" for people.', "json"
    )
    level: Literal["debug", "info", "warning", "error"] = setting(
        "The least level that is written.", "info"
    )


class SandboxSection(Section):
    """[sandbox]: only for trying things out; refused together with a live Stripe key."""

    enabled: bool = setting("Whether this is a sandbox; with true, no money may be real.", False)
    allow_private: bool = setting(
        "Whether relays may be ws:// and lie on loopback or private addresses.", False
    )
    billing_offset_s: int = setting(
        "How far billing time is ahead of the clock at the start, in seconds.", 0, ge=0
    )
