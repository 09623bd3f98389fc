"""Words about cards: where to leave one, that one is there, gone, or about to expire."""

from __future__ import annotations

from bot.dm.wording import Facts, date


def _name(f: Facts) -> str:
    """`Visa …4242`."""
    brand = str(f["brand"]).capitalize() if f.get("brand") else "card"
    return f"{brand} …{f['last4']}" if f.get("last4") else brand


def card_page(f: Facts) -> str:
    """The link, and how long it works."""
    if f["expires_at"] is not None:
        lasts = f"It works until {date(int(f['expires_at']))}"
    else:
        lasts = f"Open it soon: it works for about {int(f['lasts_s']) // 60} minutes"
    return (
        f"Leave a card here, at Stripe; I never see its number:\n\n{f['url']}\n\n{lasts}. For "
        "another: card"
    )


def card_page_failed(f: Facts) -> str:
    """Nothing to wait for."""
    return (
        "I could not get a page for your card from Stripe; the operator has been told. Nothing was "
        "changed. Please say card again later."
    )


def card_ready(f: Facts) -> str:
    """What it pays from now on."""
    if f["wallet"]:
        what = "It is used when your wallet cannot pay."
    elif f["owes"]:
        what = "What is open is paid with it now, unless a payment is under way; then renewals."
    else:
        what = "Renewals are paid with it by themselves."
    return f"Your {_name(f)} is set up. {what} To change it: card"


def card_gone(f: Facts) -> str:
    """What pays now."""
    what = (
        "Your wallet pays, as before."
        if f["wallet"]
        else "Nothing pays by itself now: invoices come to you by message. To leave another: card; "
        "or connect a wallet: wallet <nwc uri>"
    )
    return f"Your {_name(f)} was taken away and is charged no more. {what}"


def card_expires(f: Facts) -> str:
    """Before the renewal it could not pay."""
    when = "has expired" if f["is_over"] else f"expires on {date(int(f['ends_at']))}"
    renews = f" Your next renewal is on {date(int(f['renews_at']))}." if f["renews_at"] else ""
    what = (
        "Your wallet pays; the card would be used when it cannot."
        if f["wallet"]
        else "Please leave a new one before then, so that your relays go on."
    )
    return f"Your {_name(f)} {when}.{renews} {what} To change it: card"
