"""What no single key of the configuration can tell: whether the sections fit together."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Any, TypeAlias

from billing.errors import ConfigurationWrong
from billing.money import from_decimal
from billing.plans import Plan
from bot.config_dunning import DunningSection, zone_of
from bot.config_input import Problem
from bot.config_money import (
    CollectionSection,
    PayeeSection,
    PlanSection,
    RatesSection,
    RefundsSection,
    StripeSection,
)
from bot.config_relayhost import RelayHostSection
from bot.config_sections import BotSection, RegistrationSection, SandboxSection, StoreSection
from bot.nostr.keys import Keys
from bot.nostr.nip19 import parse_pubkey
from bot.nostr.relay_url import normalize_relay_url
from wallet import nwc_uri
from wallet.nwc_uri import NwcUriError

Found: TypeAlias = Iterator[Problem]
Rule: TypeAlias = tuple[tuple[str, ...], Callable[..., Found]]

LIVE_KEY = re.compile(r"[sr]k_live_\w+")
ANY_KEY = re.compile(r"[sr]k_(live|test)_\w+")


def check(sections: Mapping[str, Any]) -> list[Problem]:
    """Every rule whose sections are all valid, in the order of RULES."""
    return [
        problem
        for needed, rule in RULES
        if all(name in sections for name in needed)
        for problem in rule(*(sections[name] for name in needed))
    ]


def is_live(stripe: StripeSection) -> bool:
    """Whether the key moves real money."""
    return stripe.api_key is not None and bool(LIVE_KEY.match(stripe.api_key.get_secret_value()))


def _bot_keys(bot: BotSection) -> Found:
    if bot.key is None:
        yield "bot.key", "is missing; write bot.key_file, the path of a file with the bot's nsec1…"
    else:
        try:
            Keys.parse(bot.key.get_secret_value())
        except ValueError:
            yield "bot.key", "is no secret key; write an nsec1…"
    if not bot.vault_keys:
        yield "bot.vault_keys", "is missing; write bot.vault_key_files, a list of files"
    for index, key in enumerate(bot.vault_keys):
        if not re.fullmatch("[0-9a-f]{64}", key.get_secret_value()):
            yield f"bot.vault_keys[{index}]", "is no key; write 64 hex digits"
    if len({key.get_secret_value() for key in bot.vault_keys}) < len(bot.vault_keys):
        yield "bot.vault_keys", "has the same key twice"


def _people(bot: BotSection, registration: RegistrationSection) -> Found:
    people = [("bot.operators", bot.operators), ("registration.allow", registration.allow)]
    for where, names in people:
        for index, name in enumerate(names):
            try:
                parse_pubkey(name)
            except ValueError as error:
                yield f"{where}[{index}]", f"{error}; write an npub1…"
    if registration.mode == "allowlist" and not registration.allow:
        yield (
            "registration.allow",
            'is empty, so nobody can register; list npubs or use mode "open"',
        )


def _relays(bot: BotSection, sandbox: SandboxSection) -> Found:
    for where, urls in (("bot.relays", bot.relays), ("bot.indexer_relays", bot.indexer_relays)):
        for index, url in enumerate(urls):
            try:
                normal = normalize_relay_url(url)
            except ValueError as error:
                yield f"{where}[{index}]", f"is no relay: {error}; write wss://host"
                continue
            if normal.startswith("ws://") and not sandbox.allow_private:
                yield f"{where}[{index}]", "is not encrypted; write wss://"


def _store(store: StoreSection) -> Found:
    if store.url is not None:
        url = store.url.get_secret_value()
        if not re.match(r"(postgresql://|sqlite:///)\S+$", url):
            yield "store.url", "is no database; write postgresql://… or sqlite:///path"


def _stripe(stripe: StripeSection, sandbox: SandboxSection) -> Found:
    if stripe.api_key is not None and not ANY_KEY.fullmatch(stripe.api_key.get_secret_value()):
        yield (
            "stripe.api_key",
            "is no Stripe key; write sk_live_…, sk_test_…, rk_live_… or rk_test_…",
        )
    for index, secret in enumerate(stripe.webhook_secrets):
        if not re.fullmatch(r"whsec_\S{8,}", secret.get_secret_value()):
            yield f"stripe.webhook_secrets[{index}]", "is no signing secret; write whsec_…"
    if stripe.collection_method == "send_invoice" and stripe.email_domain is None:
        yield (
            "stripe.email_domain",
            "is missing, and Stripe sends invoices to addresses only; write a domain of yours",
        )
    if is_live(stripe) and stripe.api_base is not None:
        yield "stripe.api_base", "goes with test keys only; a live key talks to Stripe. Remove it"
    if is_live(stripe) and sandbox.enabled:
        yield "sandbox.enabled", "goes with test keys only; write false, or use a test key"


def _sandbox(sandbox: SandboxSection, rates: RatesSection) -> Found:
    if sandbox.enabled:
        return
    if rates.base_url is not None:
        yield "rates.base_url", "outside the sandbox the sources are the public ones; remove it"
    if sandbox.billing_offset_s:
        yield "sandbox.billing_offset_s", "outside the sandbox billing time is real; write 0"
    if sandbox.allow_private:
        yield "sandbox.allow_private", "outside the sandbox relays are public; write false"


def _payee(payee: PayeeSection, sandbox: SandboxSection) -> Found:
    if payee.nwc is None:
        return
    try:
        nwc_uri.parse(payee.nwc.get_secret_value(), allow_private=sandbox.allow_private)
    except NwcUriError as error:
        yield "payee.nwc", f"is no connection. {error} Write nostr+walletconnect://…"


def _refunds(refunds: RefundsSection, payee: PayeeSection, sandbox: SandboxSection) -> Found:
    if refunds.nwc is None:
        return
    try:
        uri = nwc_uri.parse(refunds.nwc.get_secret_value(), allow_private=sandbox.allow_private)
    except NwcUriError as error:
        yield "refunds.nwc", f"is no connection. {error} Write nostr+walletconnect://…"
        return
    if payee.nwc is not None and uri.to_text() in payee.nwc.get_secret_value():
        yield "refunds.nwc", "is the payee's connection, which must not pay; make a second one"


def _collection(collection: CollectionSection) -> Found:
    if len(set(collection.rails)) < len(collection.rails):
        yield "collection.rails", "names a way twice; name each once"


def _plans(
    plans: Mapping[str, PlanSection],
    stripe: StripeSection,
    payee: PayeeSection,
    collection: CollectionSection,
) -> Found:
    if not plans:
        yield "plans", "there is none; write a [plans.<id>] with title and amount"
    paid = []
    for plan_id, section in plans.items():
        plan = yield from _plan(plan_id, section, stripe.currency)
        if plan is not None and not plan.is_free:
            paid.append(plan)
    if len({(plan.currency, plan.interval) for plan in paid}) > 1:
        yield "plans", "have several currencies or intervals; write the same for all that cost"
    # Asked for with free plans too: what bills nobody needs no Purser, and a price added later must
    # not be the moment at which the bot no longer starts.
    if stripe.api_key is None:
        yield "stripe.api_key", "is missing; write stripe.api_key_file"
    if not stripe.webhook_secrets:
        yield "stripe.webhook_secrets", "is missing; write stripe.webhook_secret_files"
    if not paid:
        return
    if payee.nwc is None and any(rail != "card" for rail in collection.rails):
        yield "payee.nwc", 'is missing; write payee.nwc_file, or collection.rails = ["card"]'


def build_plan(plan_id: str, section: PlanSection, currency: str) -> Plan:
    """The plan as billing knows it; `currency` is that of plans which name none.

    Raises `ConfigurationWrong` for a price that the currency or Stripe does not allow.
    """
    currency = section.currency or currency
    amount_minor = section.amount_minor
    if section.amount is not None:
        amount_minor = from_decimal(Decimal(section.amount), currency)
    return Plan(
        plan_id, section.title, amount_minor, currency, section.interval, dict(section.relay)
    )


def _plan(
    plan_id: str, section: PlanSection, currency: str
) -> Generator[Problem, None, Plan | None]:
    where = f"plans.{plan_id}"
    given = [value for value in (section.amount, section.amount_minor) if value is not None]
    if section.free and given:
        yield f"{where}.free", "is true, yet there is an amount; remove one of the two"
    elif not section.free and not given:
        yield f"{where}.amount", 'is missing; write "5.00", or free = true'
    elif len(given) > 1:
        yield f"{where}.amount", "and amount_minor are both given; keep one"
    else:
        try:
            return build_plan(plan_id, section, currency)
        except ConfigurationWrong as error:
            yield where if section.free else f"{where}.amount", error.what
    return None


def _rates(rates: RatesSection) -> Found:
    if rates.quorum > len(set(rates.sources)):
        yield "rates.quorum", "is more than there are sources; write at most their number"
    for currency, (least, highest) in rates.bounds.items():
        if not Decimal(0) < least < highest:
            yield f"rates.bounds.{currency}", "must be [least, highest], both above 0"


def _dunning(dunning: DunningSection) -> Found:
    order = ["notice", "due", "remind", "limit", "stop", "end"]
    for before, after in pairwise(dunning.steps):
        if after.day <= before.day:
            yield "dunning.steps", f"day {after.day} follows day {before.day}; sort them, one a day"
        if order.index(after.action) < order.index(before.action):
            yield "dunning.steps", f"{after.action} cannot follow {before.action}"
    if [step.day for step in dunning.steps if step.action == "due"] != [0]:
        yield "dunning.steps", 'needs exactly one { day = 0, action = "due" }'
    try:
        zone_of(dunning.quiet_zone)
    except ValueError as error:
        yield "dunning.quiet_zone", f'{error}; write "Europe/Berlin" or "+01:00"'
    days = dunning.retry_nwc_days
    if days != sorted(set(days)) or any(day < 1 for day in days):
        yield "dunning.retry_nwc_days", "must be whole days from 1 on, ascending, each once"


def _relay_host(host: RelayHostSection, plans: Mapping[str, PlanSection]) -> Found:
    by_kind: dict[str, dict[str, object]] = {
        "zooid": {"api_url": host.zooid.api_url, "domain": host.zooid.domain},
        "nip86": {"relay_url": host.nip86.relay_url},
        "command": {"argv": host.command.argv, "domain": host.command.domain},
    }
    needed = by_kind[host.kind]
    for name, value in needed.items():
        if plans and not value:
            yield (
                f"relay_host.{host.kind}.{name}",
                f'is missing, and relay_host.kind is "{host.kind}"',
            )


RULES: tuple[Rule, ...] = (
    (("bot",), _bot_keys),
    (("bot", "registration"), _people),
    (("bot", "sandbox"), _relays),
    (("store",), _store),
    (("stripe", "sandbox"), _stripe),
    (("sandbox", "rates"), _sandbox),
    (("payee", "sandbox"), _payee),
    (("refunds", "payee", "sandbox"), _refunds),
    (("collection",), _collection),
    (("plans", "stripe", "payee", "collection"), _plans),
    (("rates",), _rates),
    (("dunning",), _dunning),
    (("relay_host", "plans"), _relay_host),
)
