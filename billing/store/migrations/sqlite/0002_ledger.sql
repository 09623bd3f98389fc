-- The ledger. Each row moves one amount of one unit from the account `credit` to the account
-- `debit`, so no row can be out of balance; an entry is the rows with its key. C20: append-only.

CREATE TABLE ledger (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    entry TEXT NOT NULL,
    line INTEGER NOT NULL,
    at INTEGER NOT NULL,
    billing_at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    invoice_id TEXT,
    payment_hash TEXT,
    debit TEXT NOT NULL,
    credit TEXT NOT NULL,
    unit TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    rate TEXT,
    CHECK (debit <> credit)
) STRICT;
CREATE UNIQUE INDEX ledger_entry ON ledger (entry, line);
CREATE INDEX ledger_invoice ON ledger (invoice_id);
CREATE INDEX ledger_billing_at ON ledger (billing_at);

CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

-- What was there before the ledger, so that the books begin where the accounts are: invoices by
-- their last state (billing.ledger.invoice_position), money by where it was put.
INSERT INTO ledger (entry, line, at, billing_at, kind, tenant, invoice_id, debit, credit, unit,
    amount)
SELECT 'invoice:' || id || ':1', 0, fetched_at, created_at, 'invoice_opening', tenant, id,
    CASE WHEN status = 'open' THEN 'receivable' WHEN status = 'uncollectible' THEN 'bad_debt'
        WHEN paid_by = 'card' THEN 'card' ELSE 'out_of_band' END,
    'revenue', currency, amount_due_minor
FROM invoices WHERE status IN ('open', 'paid', 'uncollectible') AND amount_due_minor > 0
ORDER BY created_at, id;
INSERT INTO ledger (entry, line, at, billing_at, kind, tenant, invoice_id, debit, credit, unit,
    amount)
SELECT 'invoice:' || id || ':1', CASE WHEN amount_due_minor > 0 THEN 1 ELSE 0 END, fetched_at,
    created_at, 'invoice_opening', tenant, id,
    CASE WHEN total_minor > amount_due_minor THEN 'credit' ELSE 'revenue' END,
    CASE WHEN total_minor > amount_due_minor THEN 'revenue' ELSE 'credit' END,
    currency, ABS(total_minor - amount_due_minor)
FROM invoices
WHERE status IN ('open', 'paid', 'uncollectible') AND total_minor <> amount_due_minor
ORDER BY created_at, id;
INSERT INTO ledger (entry, line, at, billing_at, kind, tenant, invoice_id, payment_hash, debit,
    credit, unit, amount, rate)
SELECT 'money:' || payment_hash || ':received', 0, seen_at, seen_at, 'money_received', tenant,
    invoice_id, payment_hash, 'conversion', 'unplaced', currency, value_minor,
    (SELECT rate FROM payment_requests WHERE id = request_id)
FROM settlements WHERE value_minor > 0 ORDER BY seen_at, payment_hash;
INSERT INTO ledger (entry, line, at, billing_at, kind, tenant, invoice_id, payment_hash, debit,
    credit, unit, amount, rate)
SELECT 'money:' || payment_hash || ':received', CASE WHEN value_minor > 0 THEN 1 ELSE 0 END,
    seen_at, seen_at, 'money_received', tenant, invoice_id, payment_hash, 'payee_wallet',
    'conversion', 'msat', amount_msat,
    (SELECT rate FROM payment_requests WHERE id = request_id)
FROM settlements WHERE amount_msat > 0 ORDER BY seen_at, payment_hash;
INSERT INTO ledger (entry, line, at, billing_at, kind, tenant, invoice_id, payment_hash, debit,
    credit, unit, amount)
SELECT 'money:' || payment_hash || ':placed', 0, seen_at, seen_at, 'money_placed', tenant,
    target_invoice_id, payment_hash, 'unplaced', 'out_of_band', currency, value_minor - credit_minor
FROM settlements WHERE state = 'placed' AND value_minor > credit_minor
ORDER BY seen_at, payment_hash;
INSERT INTO ledger (entry, line, at, billing_at, kind, tenant, invoice_id, payment_hash, debit,
    credit, unit, amount)
SELECT 'money:' || payment_hash || ':credited', 0, seen_at, seen_at, 'money_credited', tenant,
    invoice_id, payment_hash, 'unplaced', 'credit', currency, credit_minor
FROM settlements
WHERE state IN ('placed', 'credited') AND credit_minor > 0 AND next_try_at IS NULL
ORDER BY seen_at, payment_hash;
INSERT INTO ledger (entry, line, at, billing_at, kind, tenant, invoice_id, payment_hash, debit,
    credit, unit, amount)
SELECT 'money:' || payment_hash || ':owed', 0, seen_at, seen_at, 'money_owed', tenant, invoice_id,
    payment_hash, 'unplaced', 'liability', currency, value_minor
FROM settlements WHERE state = 'liability' AND value_minor > 0 ORDER BY seen_at, payment_hash;
