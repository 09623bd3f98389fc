"""The sections of the configuration that describe money: Stripe, wallets, rates, plans."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, SecretStr

from bot.config_keys import Secrets, Section, Strings, setting, split_commas

RateSourceName = Literal["coinbase", "kraken", "bitstamp", "coingecko", "bitfinex"]
RailName = Literal["nwc", "card", "manual"]


class StripeSection(Section):
    """[stripe]: the account whose subscriptions are kept in step."""

    api_key: SecretStr | None = setting(
        "Stripe's secret or restricted key, sk_… or rk_…; better in api_key_file.",
        None,
        example="sk_test_...",
    )
    api_key_file: str | None = setting(
        "A file with that key, readable by its owner only.",
        None,
        example="secrets/stripe.key",
        shown=True,
    )
    webhook_secrets: Secrets = setting(
        "One signing secret whsec_…, or two during rotation; better in webhook_secret_files.",
        [],
        max_length=2,
        example=["whsec_..."],
    )
    webhook_secret_files: Strings = setting(
        "Files with one signing secret each.",
        [],
        max_length=2,
        example=["secrets/stripe-webhook.key"],
        shown=True,
    )
    webhook_tolerance_s: int = setting(
        "How old or early a webhook's signature may be, in seconds.", 300, ge=30, le=3600
    )
    api_base: str | None = setting(
        "Another address instead of Stripe's, for an emulator; refused with a live key.",
        None,
        pattern=r"^https?://[^/\s]+$",
        example="http://127.0.0.1:12111",
    )
    account: str | None = setting(
        "The account acct_… that the key must belong to; checked at the start when given.",
        None,
        pattern=r"^acct_\w+$",
        example="acct_1Example",
    )
    currency: str = setting(
        "The currency of plans that name none, three small letters.", "usd", pattern="^[a-z]{3}$"
    )
    collection_method: Literal["charge_automatically", "send_invoice"] = setting(
        "How new subscriptions are set up at Stripe: charge_automatically, or send_invoice, which"
        " needs email_domain and is active before it is paid (a relay still comes up when it is).",
        "charge_automatically",
    )
    days_until_due: int = setting(
        "With send_invoice: the days Stripe prints on an invoice as the time to pay it. Reminders"
        " follow [dunning].",
        7,
        ge=1,
        le=90,
    )
    email_domain: str | None = setting(
        "A domain of yours for the customers' synthetic addresses; nothing is ever mailed there.",
        None,
        pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$",
        example="tenants.example.com",
    )
    card_page: Literal["auto", "portal", "checkout"] = setting(
        "Where a tenant leaves a card: Stripe's customer portal (its links work for minutes), a"
        " Checkout page (a day), or auto: the portal, and Checkout where none is set up.",
        "auto",
    )
    return_url: str | None = setting(
        "Where that page leads back to; without it, http.public_url or the relays' domain.",
        None,
        pattern=r"^https?://[^\s]+$",
        example="https://example.com/thanks",
    )
    requests_per_s: int = setting(
        "Calls to Stripe per second; Stripe allows 25 in test mode, 100 live.", 20, ge=1, le=100
    )

    @property
    def due_days(self) -> int | None:
        """None: charged automatically."""
        return self.days_until_due if self.collection_method == "send_invoice" else None


class PayeeSection(Section):
    """[payee]: the operator's own wallet, which receives and cannot spend."""

    nwc: SecretStr | None = setting(
        "A receive-only connection, nostr+walletconnect://…; better in nwc_file.",
        None,
        example="nostr+walletconnect://...",
    )
    nwc_file: str | None = setting(
        "A file with that connection, readable by its owner only.",
        None,
        example="secrets/payee.nwc",
        shown=True,
    )
    kind: Literal["lnd", "cln", "ldk", "unknown"] = setting(
        "The node behind it: an expired request is dead 5 minutes after its expiry with lnd and"
        " cln, 3 hours with ldk and unknown.",
        "unknown",
    )
    network: Literal["bitcoin", "testnet", "signet", "regtest"] = setting(
        "The Lightning network that payment requests must be for.", "bitcoin"
    )
    escalate_after_s: int = setting(
        "How long this wallet may give no usable answer about money before operators are told, in"
        " seconds; nothing else is charged meanwhile either way.",
        900,
        ge=60,
        le=86_400,
    )
    requests_per_second: int = setting(
        "How many requests this wallet takes per second; with many tenants the others wait for"
        " their turn. Half of them, at most, make payment requests; the rest looks up money.",
        10,
        ge=2,
        le=1000,
    )
    burst: int = setting(
        "How many requests it takes at once after a quiet time.", 50, ge=10, le=10_000
    )
    pubkey: str | None = setting(
        "The node's public key, 66 hex digits; a payment request of another node is refused.",
        None,
        pattern="^0[23][0-9a-f]{64}$",
        example="02abababababababababababababababababababababababababababababababab",
    )


class RefundsSection(Section):
    """[refunds]: a second connection of the operator that can spend, for refunds over Lightning."""

    nwc: SecretStr | None = setting(
        "A connection that may pay, with a small budget, nostr+walletconnect://…; better in"
        " nwc_file. Without one, refunds go to the card or the balance only.",
        None,
        example="nostr+walletconnect://...",
    )
    nwc_file: str | None = setting(
        "A file with that connection, readable by its owner only.",
        None,
        example="secrets/refunds.nwc",
    )


class CollectionSection(Section):
    """[collection]: how an open invoice is collected."""

    rails: Annotated[list[RailName], BeforeValidator(split_commas)] = setting(
        "The ways to collect in their order, from nwc, card and manual.",
        ["nwc", "card", "manual"],
        min_length=1,
        max_length=3,
    )


class RatesSection(Section):
    """[rates]: what a bitcoin costs; without a quorum no payment request is issued."""

    sources: Annotated[list[RateSourceName], BeforeValidator(split_commas)] = setting(
        "Whom to ask, from coinbase, kraken, bitstamp, coingecko and bitfinex.",
        ["coinbase", "kraken", "bitstamp"],
    )
    quorum: int = setting("Sources that must agree.", 2, ge=1)
    band_percent: Decimal = setting(
        "How far from the median an agreeing source may be, in percent.", Decimal(2), gt=0, le=20
    )
    max_age_s: int = setting("An older answer does not count, in seconds.", 120, ge=1, le=3600)
    cache_s: int = setting("How long one rate is used before asking again, in seconds.", 20, ge=0)
    timeout_s: int = setting("How long one source may take, in seconds.", 5, ge=1, le=60)
    max_move_percent: Decimal = setting(
        "A larger move within max_move_window_s is held and reported, in percent.",
        Decimal(10),
        gt=0,
        le=100,
    )
    max_move_window_s: int = setting("The time of max_move_percent, in seconds.", 600, ge=1)
    bounds: dict[str, tuple[Decimal, Decimal]] = setting(
        "Per currency the least and the highest believable price of one bitcoin.",
        dict.fromkeys(("usd", "eur", "gbp", "chf"), ("5000", "5000000")),
    )
    base_url: str | None = setting(
        "One address for all sources, for testing; refused outside the sandbox.",
        None,
        example="http://127.0.0.1:9000",
        pattern=r"^https?://[^/\s]+$",
    )


class PlanSection(Section):
    """[plans.<id>]: one priced tier; <id> is of a-z, 0-9 and -. All share currency and interval."""

    title: str = setting("What tenants read.", example="Basic", min_length=1, max_length=80)
    free: bool = setting("Whether the plan costs nothing; it then has no amount.", False)
    amount: str | None = setting(
        'The price per interval in the currency\'s main unit, as text: "5.00".',
        None,
        pattern=r"^\d{1,9}(\.\d{1,3})?$",
        example="5.00",
        shown=True,
    )
    amount_minor: int | None = setting(
        "The same in the smallest unit (cents), instead of amount.", None, gt=0, example=500
    )
    currency: str | None = setting(
        "Three small letters; without it, stripe.currency.",
        None,
        example="eur",
        pattern="^[a-z]{3}$",
    )
    interval: Literal["month", "year"] = setting(
        'How often it is paid: "month" or "year".', "month"
    )
    relay: dict[str, Any] = setting("Settings that the relay host is given for such a relay.", {})
