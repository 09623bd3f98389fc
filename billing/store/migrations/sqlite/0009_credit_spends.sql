-- Credit that pays an open invoice: one row from the intent to the end (M10). The id is the operation
-- that takes it from the balance at Stripe.

CREATE TABLE credit_spends (
    id TEXT PRIMARY KEY,
    invoice_id TEXT NOT NULL REFERENCES invoices (id),
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    customer_id TEXT NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    return_minor INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'prepared'
        CHECK (state IN ('prepared', 'debited', 'returning', 'placed', 'returned')),
    created_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;
-- One payer at a time (M4), credit too.
CREATE UNIQUE INDEX credit_spends_one_live ON credit_spends (invoice_id) WHERE ended_at IS NULL;
