"""Makes the parts of a running bot from a configuration; `bot.app` puts them to work."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import httpx

from billing.accounts import Accounts
from billing.card_pages import CardCommands, CardPageMaker
from billing.cards import CardKeeper
from billing.collection import Collector
from billing.connections import ConnectionBook, Prober, WalletCommands
from billing.customers import CustomerBook
from billing.desk import GATHER_S, Desk, Policy
from billing.dunning_clock import Heartbeat
from billing.dunning_end import SubscriptionEnder
from billing.dunning_evidence import Investigator
from billing.dunning_worker import Dunner
from billing.events import EventWorker
from billing.handlers import Handlers
from billing.inbox import Inbox
from billing.ingest import Ingest
from billing.lease import Lease
from billing.mass_failure import FailureWatch
from billing.model import Rail
from billing.orders import Orders
from billing.outbox import OutboxWorker
from billing.pace import PayeePace
from billing.payer_lookups import PayerLookups
from billing.payer_replies import Witness
from billing.plan_desk import PlanDesk
from billing.plan_worker import PlanWorker
from billing.plans import Catalogue
from billing.ports import HostedRelays
from billing.preflight import Preflight
from billing.promises import Promises
from billing.rails.card import CardRail
from billing.rails.credit import CreditRail
from billing.rails.issue import Issuer
from billing.rails.manual import ManualRail
from billing.rails.nwc import NwcRail
from billing.rate_book import RateBook
from billing.rate_sources import build_rate_sources
from billing.rate_watch import RateWatch
from billing.rebuild import Rebuilder
from billing.reconcile import Reconciler
from billing.refund_lightning import LightningRefunds
from billing.refund_memory import RefundMemory
from billing.refund_worker import RefundWorker
from billing.relays import RelayKeeper
from billing.reseal import Resealer
from billing.resolver import Resolver
from billing.resumes import Resumes
from billing.retention import Retention
from billing.settlements import Placer
from billing.spending import SpenderBook
from billing.store.engine import MigratableEngine
from billing.store.vault import Key, KeyRing, Vault
from billing.stripe_gateway import StripeSdkGateway
from billing.subscription_changes import Changer
from billing.subscription_sync import SubscriptionSync
from billing.sweep import Sweeper
from billing.unit import Runtime, Wakeups
from bot.clock import SystemClock, SystemIds
from bot.config import Config
from bot.dm.commands.registry import Services
from bot.dm.inbound import Inbound
from bot.dm.outbound import Outbound
from bot.nostr.directory import Directory
from bot.nostr.egress import Egress
from bot.nostr.nwc_transport import RelayNwcTransport
from bot.nostr.pool import RelayPool
from bot.relayhost import registry as relay_hosts
from bot.relayhost.http import new_client, nip98_authorize
from bot.relayhost.zooid import derived_secrets
from bot.wallets import Wallets

DAY_S: Final = 86_400
BECH32_OF_NETWORK: Final = {"bitcoin": "bc", "testnet": "tb", "signet": "tbs", "regtest": "bcrt"}


@dataclass(frozen=True, slots=True)
class Core:
    """What reaches the outside, and what everything else is built on."""

    config: Config
    clock: SystemClock
    ids: SystemIds
    engine: MigratableEngine
    lease: Lease
    rt: Runtime
    vault: Vault
    http: httpx.AsyncClient
    host_http: httpx.AsyncClient
    stripe: StripeSdkGateway
    pool: RelayPool
    book: ConnectionBook
    spender_book: SpenderBook
    wallets: Wallets
    host: HostedRelays
    rates: RateBook
    catalogue: Catalogue


@dataclass(frozen=True, slots=True)
class Intake:
    """What comes in: webhooks and direct messages."""

    ingest: Ingest
    inbox: Inbox
    inbound: Inbound


@dataclass(frozen=True, slots=True)
class Workers:
    """Each has `run_once(now)`."""

    events: EventWorker
    sync: SubscriptionSync
    plans: PlanWorker
    collector: Collector
    resolver: Resolver
    payer_lookups: PayerLookups
    placer: Placer
    keeper: RelayKeeper
    outbox: OutboxWorker
    prober: Prober
    reconciler: Reconciler
    rebuilder: Rebuilder
    sweeper: Sweeper
    refunds: RefundWorker
    preflight: Preflight
    dunner: Dunner
    rate_watch: RateWatch
    resealer: Resealer
    retention: Retention
    cards: CardKeeper
    card_pages: CardPageMaker


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a running bot consists of."""

    core: Core
    intake: Intake
    workers: Workers


def key_ring(config: Config) -> KeyRing:
    """The vault's keys, named by what they are: an id that shows nothing of the key."""
    return KeyRing(
        tuple(
            Key(hashlib.sha256(b"purser/key-id" + secret).hexdigest()[:8], secret)
            for secret in config.vault_keys
        )
    )


def build_stripe(config: Config, ids: SystemIds) -> StripeSdkGateway:
    """The real SDK, against Stripe or the configured emulator."""
    assert config.stripe.api_key is not None
    return StripeSdkGateway(
        config.stripe.api_key.get_secret_value(),
        ids,
        api_base=config.stripe.api_base,
        requests_per_s=config.stripe.requests_per_s,
    )


def build_host(config: Config, clock: SystemClock, client: httpx.AsyncClient) -> HostedRelays:
    """The configured relay host; the caller closes the client."""
    keys = config.keys
    master = hashlib.sha256(b"purser/relay-host" + keys.reveal_nsec().encode()).digest()
    tools = relay_hosts.Tools(
        client=client,
        authorize=nip98_authorize(keys, clock.now),
        secret_of=derived_secrets(master),
        sandbox=config.sandbox.enabled,
    )
    return relay_hosts.build(config.relay_host, tools)


def build(config: Config, engine: MigratableEngine) -> Parts:
    """All parts, on an open and migrated database; nothing runs yet."""
    core = build_core(config, engine)
    return Parts(core, _build_intake(core), _build_workers(core))


def build_core(config: Config, engine: MigratableEngine) -> Core:
    """Clients and stores; also what the command line's own calls need."""
    clock = SystemClock(config.sandbox.billing_offset_s)
    ids = SystemIds()
    lease = Lease(engine, clock, ids.new("instance"))
    plans = config.catalogue()
    rt = Runtime(engine, clock, ids, Wakeups(), lease, config.operator_pubkeys)
    rt.free_plans, rt.prices = plans.free_ids, plans.prices
    vault = Vault(key_ring(config), ids)
    http = httpx.AsyncClient(timeout=config.rates.timeout_s, follow_redirects=False)
    host_http = new_client(config.relay_host.timeout_s)
    pool = RelayPool(
        Egress(allow_private=config.sandbox.allow_private), clock, ids, keys=config.keys
    )
    book = ConnectionBook(rt, vault, allow_private=config.sandbox.allow_private)
    spender_book = SpenderBook(rt, vault, allow_private=config.sandbox.allow_private)
    return Core(
        config=config,
        clock=clock,
        ids=ids,
        engine=engine,
        lease=lease,
        rt=rt,
        vault=vault,
        http=http,
        stripe=build_stripe(config, ids),
        pool=pool,
        book=book,
        spender_book=spender_book,
        wallets=Wallets(
            rt=rt,
            book=book,
            spender_book=spender_book,
            witness=Witness(rt),
            clock=clock,
            payee_transport=RelayNwcTransport(pool, clock, ids, trusted=True),
            payer_transport=RelayNwcTransport(pool, clock, ids),
            network=BECH32_OF_NETWORK[config.payee.network],
            pinned_payee=config.payee.pubkey,
        ),
        host_http=host_http,
        host=build_host(config, clock, host_http),
        rates=build_rates(config, http, clock),
        catalogue=config.catalogue(),
    )


def build_rates(config: Config, http: httpx.AsyncClient, clock: SystemClock) -> RateBook:
    """The configured sources behind one decision."""
    return RateBook(
        build_rate_sources(config.rates.sources, http, clock, base_url=config.rates.base_url),
        clock,
        rules=config.rate_rules(),
        cache_s=config.rates.cache_s,
    )


def _build_intake(core: Core) -> Intake:
    config, rt = core.config, core.rt
    ingest = Ingest(core.engine, wake=rt.wakeups.changed)
    desk = Desk(rt, _policy(config))
    services = Services(
        desk,
        Orders(desk, core.catalogue, config.subscriptions.stop),
        Accounts(desk, config.dunning_policy()),
        WalletCommands(desk, core.book),
        Promises(desk, config.dunning_policy()),
        PlanDesk(desk, core.catalogue, config.subscriptions.provision),
        CardCommands(desk, "card" in config.collection.rails, config.stripe.card_page),
        Resumes(desk, core.catalogue),
    )
    inbox = Inbox(
        clock=core.clock,
        engine=core.engine,
        ingest=ingest,
        secrets=[s.get_secret_value() for s in config.stripe.webhook_secrets],
        tolerance_s=config.stripe.webhook_tolerance_s,
    )
    return Intake(ingest, inbox, Inbound(rt, config.keys, services))


def _build_workers(core: Core) -> Workers:
    config, rt, stripe = core.config, core.rt, core.stripe
    own_relays = tuple(config.bot.relays)
    directory = Directory(core.pool, core.clock, config.bot.indexer_relays)
    courier = Outbound(
        rt, config.keys, core.vault, core.pool, directory, own_relays, frozenset(own_relays)
    )
    pace = PayeePace(config.payee.requests_per_second, config.payee.burst)
    resolver = Resolver(rt, core.wallets, pace, config.payee.escalate_after_s)
    sweeper = Sweeper(rt, core.wallets, core.rates)
    lightning = LightningRefunds(rt, core.wallets, core.wallets, RefundMemory(rt, stripe))
    provision = config.subscriptions.provision
    sync = SubscriptionSync(
        rt,
        stripe,
        core.catalogue,
        Changer(rt, stripe, config.stripe.due_days),
        email_domain=config.stripe.email_domain,
        provision=provision,
        stop=config.subscriptions.stop,
    )
    reconciler = Reconciler(rt, stripe, core.catalogue, livemode=config.livemode)
    return Workers(
        events=EventWorker(
            rt,
            Handlers(rt, stripe, core.catalogue),
            livemode=config.livemode,
            account=config.stripe.account,
        ),
        sync=sync,
        plans=PlanWorker(rt, sync.plan_orders.pricer, core.catalogue, provision),
        collector=_build_collector(core, pace),
        resolver=resolver,
        payer_lookups=PayerLookups(rt, core.wallets),
        rebuilder=Rebuilder(rt, stripe, resolver, sweeper, reconciler.subscriptions),
        placer=Placer(rt, stripe),
        keeper=RelayKeeper(rt, core.host, core.catalogue, config.relay_domain),
        outbox=OutboxWorker(rt, courier),
        prober=Prober(rt, core.wallets, core.wallets, config.payee.network),
        reconciler=reconciler,
        sweeper=sweeper,
        resealer=Resealer(rt, core.vault),
        rate_watch=RateWatch(rt, core.rates, _currency(core)),
        cards=CardKeeper(rt, stripe),
        card_pages=_build_card_pages(core),
        retention=Retention(rt, config.store.keep_events_days, config.store.keep_rejected_days),
        preflight=_build_preflight(core),
        dunner=_build_dunner(core),
        refunds=RefundWorker(rt, stripe, lightning),
    )


def _build_collector(core: Core, pace: PayeePace) -> Collector:
    config, rt, stripe = core.config, core.rt, core.stripe
    issuer = Issuer(rt, stripe, core.wallets, core.rates, config.payee.kind, pace)
    return Collector(
        rt,
        stripe,
        issuer,
        NwcRail(rt, core.wallets, issuer, config.payee.network),
        CardRail(rt, stripe),
        ManualRail(rt, issuer),
        CreditRail(rt, stripe),
        tuple(Rail(rail) for rail in config.collection.rails),
        tuple(days * DAY_S for days in config.dunning.retry_nwc_days),
    )


def _build_card_pages(core: Core) -> CardPageMaker:
    section = core.config.stripe
    book = CustomerBook(core.rt, core.stripe, section.email_domain)
    url = _return_url(core.config)
    return CardPageMaker(core.rt, core.stripe, book, return_url=url, pages=section.card_page)


def _build_preflight(core: Core) -> Preflight:
    config = core.config
    policy = config.dunning_policy()
    return Preflight(
        core.rt,
        core.stripe,
        core.wallets,
        core.rates,
        core.catalogue,
        network=config.payee.network,
        notice_days=policy.notice_days,
        asks_wallets="nwc" in config.collection.rails,
        quiet=policy.quiet,
    )


def _build_dunner(core: Core) -> Dunner:
    rt, stripe, currency = core.rt, core.stripe, _currency(core)
    return Dunner(
        rt,
        Heartbeat(rt, stripe, core.wallets, core.rates, currency),
        Investigator(rt, stripe, core.wallets, currency),
        SubscriptionEnder(rt, stripe, core.catalogue),
        FailureWatch(rt, core.config.dunning.mass_failure_tenants),
        core.rates,
        core.config.dunning_policy(),
        tuple(Rail(rail) for rail in core.config.collection.rails),
    )


def _return_url(config: Config) -> str:
    """Where Stripe's page leads back to; it demands one, and a chat has none."""
    fallback = f"https://{config.relay_domain}" if config.relay_domain else "https://stripe.com"
    return config.stripe.return_url or config.http.public_url or fallback


def _currency(core: Core) -> str:
    """All paid plans share one."""
    return next((plan.currency for plan in core.catalogue.paid), core.config.stripe.currency)


def _policy(config: Config) -> Policy:
    registration = config.registration
    return Policy(
        allowed=config.allowed_pubkeys,
        max_unpaid_relays=registration.max_unpaid_relays,
        unpaid_expires_s=registration.unpaid_expires_s,
        commands_per_minute=registration.messages_per_minute,
        gather_s=GATHER_S,
    )
