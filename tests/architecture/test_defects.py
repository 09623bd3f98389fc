"""Every defect of systems like this one, and every incident, has a test that names it.

Three systems were the starting point: C is one that hosts relays on Stripe and NWC, K sells
licences over Lightning and cards, V takes payments through a provider. What went wrong in each is
told here in a few words, with the place of its proof.
"""

from __future__ import annotations

import re

import pytest

from tests.architecture.named import all_tests, naming

BOOKS = "tests/unit/billing"
STRAIGHT = f"{BOOKS}/test_straight_path.py"
PAYER = f"{BOOKS}/test_m03_m06_payer.py"
DUNNING = f"{BOOKS}/test_dunning_timeline.py"
INCIDENTS_FILE = f"{BOOKS}/test_incidents.py"
OVER_RELAYS = "tests/interop/test_misbehaviour_over_relays.py"
SYNC = f"{BOOKS}/test_subscription_sync.py"
EVENTS = f"{BOOKS}/test_webhook_events.py"

DEFECTS = {
    "C1": (
        "the guard row held too little for anything to resolve a pending payment",
        f"{PAYER}::test_m1_a_hash_stands_at_stripe_and_in_the_store_before_anybody_may_pay_it",
    ),
    "C2": (
        "every error became pending, an empty wallet too: no other rail, no message",
        f"{STRAIGHT}::test_a_refusal_falls_to_the_manual_rail_with_the_same_request",
    ),
    "C3": (
        "a card or a hand and a wallet could both pay one invoice",
        f"{PAYER}::test_m4_no_rail_starts_while_stripe_works_on_a_card",
    ),
    "C4": (
        "an invoice was acted on whatever its state, for the amount once due",
        f"{BOOKS}/test_incidents.py::test_c4_only_what_is_open_and_still_owed_is_asked_for",
    ),
    "C5": (
        "drafts and open invoices treated alike",
        f"{EVENTS}::test_c5_a_draft_that_cannot_be_finalized_is_told_and_nothing_is_charged",
    ),
    "C6": (
        "work and failures inside the webhook request",
        "tests/store/test_inbox.py::test_a_genuine_delivery_is_stored_as_it_came",
    ),
    "C7": (
        "the message outside the state change: lost on failure, sent again on redelivery",
        f"{EVENTS}::test_k1_c7_effect_message_and_handled_at_commit_together_or_not_at_all",
    ),
    "C8": (
        "payment brought relays back only if a flag happened to be set",
        f"{DUNNING}::test_c8_paying_any_way_at_any_moment_ends_it_and_brings_back_what_it_took",
    ),
    "C9": (
        "a deleted subscription left relays on, and the next sync made another",
        f"{BOOKS}/test_subscription_ends.py"
        "::test_c9_cancelled_at_stripe_it_runs_out_lapses_and_resume_orders_it_again",
    ),
    "C10": (
        "delinquency cancelled the subscription",
        f"{DUNNING}::test_c10_delinquency_does_not_change_the_subscription",
    ),
    "C11": (
        "keys made from the arguments replayed dead objects for a day",
        f"{SYNC}::test_m11_c11_two_one_two_one_within_an_hour_converges",
    ),
    "C12": (
        "a bolt11 for people kept for ever, whatever its expiry and the rate",
        f"{INCIDENTS_FILE}"
        "::test_c12_an_expired_bolt11_is_not_shown_again_and_the_new_one_has_the_new_rate",
    ),
    "C13": (
        "a payment by hand was noticed only when somebody opened the page",
        f"{STRAIGHT}::test_without_a_wallet_a_hand_payment_is_noticed_by_itself",
    ),
    "C14": (
        "nothing on a timer: a failed month was never tried again",
        f"{DUNNING}::test_c14_a_failed_month_is_tried_again_by_itself",
    ),
    "C15": (
        "relays that never came up were billed and nobody noticed",
        f"{INCIDENTS_FILE}"
        "::test_c15_a_paid_relay_that_does_not_come_up_is_told_to_operators_at_once",
    ),
    "C16": (
        "no dedupe or order of events; a late one of an old subscription cleared the new one",
        f"{EVENTS}::test_c16_a_late_event_of_an_old_subscription_changes_nothing",
    ),
    "C17": (
        "an empty customer id was looked up as if it were one",
        f"{SYNC}::test_c17_an_empty_customer_is_never_looked_up",
    ),
    "C18": (
        "no refunds, disputes, credits, partial payments",
        f"{BOOKS}/test_books_audit.py::test_c18_a_lost_dispute_is_booked_once",
    ),
    "C19": (
        "the grace of a week existed only in a text",
        f"{DUNNING}::test_c19_every_message_says_what_comes_and_when_and_how_to_pay",
    ),
    "C20": (
        "money changes left no audit line",
        f"{BOOKS}/test_audit_lines.py::test_c20_every_change_of_money_leaves_its_audit_line",
    ),
    "C21": (
        "nobody could see what was stuck",
        f"{BOOKS}/test_stuck.py::test_c21_in_a_healthy_world_nothing_is_stuck",
    ),
    "C22": (
        "raw wallet errors stored and sent, with the connection in them",
        "tests/e2e/test_hostile_world.py::test_no_secret_in_logs_or_in_the_database",
    ),
    "C23": (
        "no check of the wallet's methods or budget",
        f"{BOOKS}/test_c23_preflight.py::test_c23_the_report_of_a_wallet_is_one_message",
    ),
    "C24": (
        "a dead worker stayed dead until the restart",
        "tests/unit/supervise/test_supervise.py"
        "::test_c24_a_dead_worker_is_restarted_with_growing_pauses_and_operators_are_told_once",
    ),
    "C25": (
        "the first invoice expired, the relay stayed on and was ordered anew: free hosting",
        f"{BOOKS}/test_straight_path.py::test_c25_an_unpaid_order_ends_and_nothing_is_owed",
    ),
    "C26": (
        "Stripe marked paid on the wallet's word, the preimage thrown away",
        f"{PAYER}::test_m6_a_preimage_alone_pays_nothing_and_keeps_other_charges_away",
    ),
    "C27": (
        "one source of the exchange rate, no bounds",
        "tests/unit/test_rates.py::test_c27_one_liar_is_left_out",
    ),
    "C28": (
        "tenant by tenant before the queue was read: overflow, again, livelock at 10 000",
        f"{BOOKS}/test_reconcile.py"
        "::test_c28_ten_thousand_tenants_are_swept_while_the_workers_go_on",
    ),
    "C29": (
        "any one paid invoice cleared the debt of all",
        f"{DUNNING}::test_c29_one_of_two_paid_does_not_clear_the_debt_of_the_other",
    ),
    "C30": (
        "invoice.overdue after the payment cut off a paid-up tenant",
        f"{DUNNING}::test_c30_an_overdue_event_hastens_nothing",
    ),
    "K1": (
        "status written before the effect: a crash between lost the effect for good",
        f"{EVENTS}::test_k1_c7_effect_message_and_handled_at_commit_together_or_not_at_all",
    ),
    "K2": (
        "invoices older than 72 h were never looked at again",
        f"{BOOKS}/test_reconcile.py::test_k2_an_invoice_of_any_age_is_looked_at",
    ),
    "K3": (
        "webhook and reconciler had different code",
        f"{EVENTS}::test_k3_what_polling_finds_ends_where_webhooks_end",
    ),
    "K4": (
        "a settled renewal was taken for a new sale: a second subscription",
        f"{SYNC}::test_k4_a_settled_renewal_is_no_new_sale",
    ),
    "K5": (
        "an unpaid subscription was invoiced again for ever and never lapsed",
        f"{DUNNING}::test_k5_the_whole_timeline_and_then_nothing_is_owed_or_invoiced_any_more",
    ),
    "K6": (
        "cycles anchored at the payment: each renewal later than the last",
        f"{SYNC}::test_k6_cycles_stay_anchored_however_late_they_are_paid",
    ),
    "K7": (
        "a customer lapsed by the operator's outage",
        f"{BOOKS}/test_dunning_outages.py::test_k7_while_something_of_ours_is_away_no_time_counts",
    ),
    "K8": (
        "timestamps compared as text: lapsed a day early",
        f"{DUNNING}::test_k8_nothing_is_taken_a_second_before_its_time",
    ),
    "K9": (
        "the provider's invoice was made before any row: a crash made two",
        "tests/store/test_bad_disk.py::test_m1_at_every_effect_a_power_loss_leaves_its_intent",
    ),
    "K10": (
        "the bolt11 of somebody else's wallet was not checked against the amount asked",
        f"{BOOKS}/test_c18_refunds.py::test_k10_another_amount_or_a_used_hash_is_not_paid",
    ),
    "K11": (
        "a scheduled change overwritten by a second one",
        f"{BOOKS}/test_plan_one_change.py"
        "::test_k11_a_scheduled_change_is_replaced_only_by_a_word_that_names_it",
    ),
    "K12": (
        "provider keys in clear in the database",
        "tests/store/test_reseal.py::test_k12_every_secret_ends_up_under_the_first_key",
    ),
    "V1": (
        "a refund without the provider's id was failed though the provider may have it",
        f"{BOOKS}/test_c18_refunds.py::test_v1_an_orphan_is_looked_up_before_anything_else",
    ),
    "V2": (
        "unknown refund ids acknowledged in silence",
        f"{BOOKS}/test_c18_refunds.py::test_v2_a_refund_from_the_dashboard_is_taken_up_and_told",
    ),
    "V3": (
        "oversize deliveries left no trace",
        "tests/store/test_inbox.py::test_v3_an_oversize_delivery_leaves_a_trace_without_its_body",
    ),
    "V4": (
        "SQL that worked on one engine failed silently on the other",
        "tests/store/test_prepare.py::test_the_statement_works_on_both",
    ),
}

INCIDENTS = {
    "mutiny-web 1105": (
        "a subscription paid twice: timed out, retried, both settled",
        f"{BOOKS}/test_incidents.py::test_a_wallet_that_settles_after_every_time_out_is_asked_once",
    ),
    "CVE-2024-34694": (
        "a time-out taken for a failure",
        f"{BOOKS}/test_c18_refunds.py::test_m5_an_unknown_outcome_stays_in_flight_and_is_looked_up",
    ),
    "BTCPay 2.0.2": (
        "cancelled after success because the look-up failed, and paid again",
        f"{BOOKS}/test_incidents.py::test_a_look_up_that_fails_after_success_cancels_nothing",
    ),
    "Alby Hub 1222": (
        "a race that only PostgreSQL has",
        "tests/store/test_races.py::test_m3_m4_two_collectors_at_once_send_one_request",
    ),
    "Alby Hub 1587": (
        "pending for ever",
        f"{BOOKS}/test_incidents.py::test_nothing_is_pending_for_ever",
    ),
    "js-sdk 577": (
        "a relay kept a request, and the wallet executed it after its expiration",
        f"{OVER_RELAYS}::test_a_wallet_that_was_away_gets_the_request_late_or_never",
    ),
    "ZEUS 4410": (
        "requests that a relay kept were paid again at each reconnect",
        f"{OVER_RELAYS}::test_a_request_that_a_relay_shows_again_is_not_ours_to_repeat",
    ),
    "TPoS 52": (
        "no rate: €30.50 became one sat",
        f"{BOOKS}/test_incidents.py::test_without_a_rate_nothing_is_asked_for",
    ),
    "CVE-2025-32013": (
        "a stranger's URL led into the operator's own network",
        "tests/unit/nostr/test_egress.py::test_one_bad_address_spoils_the_name",
    ),
    "sender spoofing": (
        "a gift wrap's inner sender was believed",
        "tests/unit/nostr/test_nostr_giftwrap.py::test_a_forged_sender_is_refused",
    ),
}


LAST = {"C": 30, "K": 12, "V": 4}


def every_number() -> list[str]:
    return [f"{system}{n}" for system, last in LAST.items() for n in range(1, last + 1)]


@pytest.mark.parametrize("number", every_number())
def test_every_defect_has_a_test_that_names_it(number: str) -> None:
    assert number in DEFECTS, f"nothing proves {number}"
    _, place = DEFECTS[number]
    assert place in all_tests(), f"{number}: there is no {place}"
    assert place in naming(number), f"{place} does not say that it proves {number}"


def test_no_number_is_listed_that_no_system_had() -> None:
    assert set(DEFECTS) == set(every_number())
    for place, test in all_tests().items():
        said = {word.upper() for word in test.name.split("_") if re.fullmatch(r"[ck]\d+", word)}
        assert said <= set(every_number()), place


@pytest.mark.parametrize("incident", INCIDENTS)
def test_every_incident_has_a_test_that_names_it(incident: str) -> None:
    _, place = INCIDENTS[incident]
    test = all_tests().get(place)
    assert test is not None, f"{incident}: there is no {place}"
    assert incident in test.docstring, f"{place} does not name {incident}"
