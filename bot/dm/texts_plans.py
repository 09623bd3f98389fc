"""The words about changes of plan, and about relays that lapse and go on."""

from __future__ import annotations

from bot.dm.wording import Facts, amount, date


def plan_pricing(f: Facts) -> str:
    instead = f" It takes the place of the change to {f['replaces']}." if f["replaces"] else ""
    return f"Asking what {f['name']} on {f['plan']} costs; the offer follows in a moment.{instead}"


def plan_quote(f: Facts) -> str:
    if f["change"] == "downgrade":
        cost = (
            f"Nothing to pay now. {f['name']} stays on {f['from_plan']} until "
            f"{date(f['next_at'])}; from then your renewals are {amount(f, 'next_minor')}."
        )
    elif f["later"]:
        cost = (
            f"Nothing to pay now; it changes at once. Your renewal on {date(f['next_at'])} is "
            f"{amount(f, 'next_minor')}, with the difference in it."
        )
    else:
        when = f" on {date(f['next_at'])}" if f["next_at"] is not None else " a period later"
        cost = (
            f"{amount(f, 'now_minor')} now, and it changes when that is paid. Your renewal{when} "
            f"is {amount(f, 'next_minor')}."
        )
    return (
        f"{f['name']}: {f['from_plan']} → {f['to_plan']}. {cost}\nTo do it, say within "
        f"{f['minutes']} minutes: confirm {f['code']}"
    )


def plan_no_price(f: Facts) -> str:
    return (
        f"The price of {f['name']} on {f['plan']} could not be found out; nothing was changed. "
        f"Please ask again later: plan {f['name']} {f['plan']}"
    )


def plan_kept(f: Facts) -> str:
    if f["dropped"] is None:
        return f"{f['name']} is on {f['plan']} already. Nothing to do."
    return f"{f['name']} stays on {f['plan']}; the change to {f['dropped']} is cancelled."


_WHY_NOT = {
    "stopping": "{name} is being stopped. To keep it: resume {name}",
    "unpaid_order": "{name} waits for its first payment. Say pay; its plan can change after that.",
    "owed": "Something is owed for {name}. Say pay; its plan can change after that.",
    "renewing": "{name} is renewed within the hour: until that is done the change to {plan} can be "
    "neither made nor cancelled. Ask again in an hour.",
    "before_renewal": "{name} is renewed within hours, and a change to {plan} would have to be "
    "paid before that. Ask again once it is renewed.",
    "changed": "{name} has changed since. Ask again: plan {name} {plan}",
}


def plan_not_now(f: Facts) -> str:
    return _WHY_NOT[str(f["why"])].format(name=f["name"], plan=f["plan"])


def plan_open(f: Facts) -> str:
    if f["state"] == "scheduled":
        return (
            f"{f['name']} changes to {f['plan']} on {date(f['at'])}. To cancel that first: "
            f"plan {f['name']} {f['current']}"
        )
    return (
        f"The change of {f['name']} to {f['plan']} waits for its payment. Say pay to pay it; "
        f"unpaid it ends by itself on {date(f['at'])}."
    )


def plan_confirmed(f: Facts) -> str:
    if not f["now_minor"]:
        return f"{f['name']} changes to {f['plan']} in a moment; there is nothing to pay now."
    how = "Your wallet is asked to pay" if f["wallet"] else "An invoice follows for"
    return (
        f"{how} {amount(f, 'now_minor')}; {f['name']} changes to {f['plan']} when that is paid. "
        f"Unpaid by {date(f['due_until'])}, it stays as it is."
    )


def plan_scheduled(f: Facts) -> str:
    was = f" That takes the place of the change to {f['was']}." if f["was"] else ""
    return f"{f['name']} changes to {f['plan']} on {date(f['next_at'])}.{was} Nothing more to do."


def plan_applied(f: Facts) -> str:
    return f"{f['name']} is on {f['plan']} now: {f['url']}"


def plan_undone(f: Facts) -> str:
    return (
        f"The change of {f['name']} to {f['to_plan']} was not paid in time and is off: it stays on "
        f"{f['from_plan']}, and nothing is owed for it. To try again: plan {f['name']} "
        f"{f['to_plan']}"
    )


def no_such_offer(f: Facts) -> str:
    return "I made no offer with that code. Ask for one with: plan <relay> <plan>"


_OVER = {
    "expired": "That offer has run out. Ask again: plan {name} {plan}",
    "replaced": "A newer offer took the place of that one. Say the newer code.",
    "confirmed": "That offer is confirmed already. Nothing more to do.",
    "ordered": "That offer is confirmed already and waits for its payment. Say pay to pay it.",
    "scheduled": "That offer is confirmed already. Nothing more to do.",
    "applied": "That offer is taken: {name} is on that plan. Nothing more to do.",
}


def offer_over(f: Facts) -> str:
    words = _OVER.get(str(f["state"]), "That offer is over. Ask again: plan {name} {plan}")
    return words.format(name=f["name"], plan=f["plan"])


def order_expired(f: Facts) -> str:
    return (
        f"The order of {f['name']} was not paid in time; nothing is owed for it. To order it "
        f"again: resume {f['name']} (its name is kept until {date(f['kept_until'])})"
    )


def lapsing(f: Facts) -> str:
    return (
        f"The subscription of {f['name']} was ended at Stripe. It runs until "
        f"{date(f['stops_at'])} and is not renewed. To keep it: resume {f['name']}"
    )


def never_up(f: Facts) -> str:
    return (
        f"{f['name']} was paid and could not be brought up. It is not billed after "
        f"{date(f['stops_at'])} unless it comes up; the operator has been told and owes you what "
        "you paid."
    )


def lapsed(f: Facts) -> str:
    return (
        f"{f['name']} is off: what was paid for it has run out. To order it again: resume "
        f"{f['name']} (its name is kept until {date(f['kept_until'])})"
    )


def ordering_again(f: Facts) -> str:
    return f"What was paid for {f['name']} has run out. It is ordered again; its invoice follows."


def name_released(f: Facts) -> str:
    return (
        f"{f['name']} was not ordered again and has ended; its name is free. To order it anew: "
        f"new {f['name']} {f['plan']}"
    )


def resumed(f: Facts) -> str:
    if f["free"] or f["renews_at"] is None:
        return f"{f['name']} goes on. Nothing more to do."
    return f"{f['name']} goes on and is renewed on {date(f['renews_at'])}. Nothing more to do."


def resumes_later(f: Facts) -> str:
    return (
        f"{f['name']} is paid until {date(f['at'])}. Then it is ordered again by itself, and its "
        "invoice follows. Nothing more to do."
    )


def resume_by_paying(f: Facts) -> str:
    return f"{f['name']} goes on when what is owed for it is paid. Say pay for an invoice."


def nothing_to_resume(f: Facts) -> str:
    return f"{f['name']} is not being stopped. Nothing to do."


def plan_is_gone(f: Facts) -> str:
    return (
        f"The plan of {f['name']} ({f['plan']}) is not offered any more. See plans, and ask the "
        "operator to move it."
    )


def stop_credit(f: Facts) -> str:
    return (
        f"{amount(f, 'credit_minor')} that you paid and did not use is now your credit and is "
        "used for the next invoice. Nothing to do."
    )
