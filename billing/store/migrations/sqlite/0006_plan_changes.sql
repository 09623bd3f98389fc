-- Changes of a relay's plan, from the wish for a quote to its end; relays that outlive their
-- subscription; more kinds of changes of a subscription.

CREATE TABLE plan_changes (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    relay_id TEXT NOT NULL REFERENCES hosted_relays (id),
    kind TEXT NOT NULL CHECK (kind IN ('upgrade', 'downgrade')),
    from_plan TEXT NOT NULL,
    to_plan TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('wanted', 'quoted', 'confirmed', 'ordered', 'scheduled',
        'applied', 'undone', 'cancelled', 'replaced', 'expired')),
    code TEXT,
    currency TEXT NOT NULL,
    now_minor INTEGER,
    next_minor INTEGER,
    next_at INTEGER,
    proration_at INTEGER,
    quote_expires_at INTEGER,
    due_until INTEGER,
    invoice_id TEXT,
    applied_rev INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try_at INTEGER,
    created_at INTEGER NOT NULL,
    confirmed_at INTEGER,
    ended_at INTEGER,
    problem TEXT,
    CHECK (state NOT IN ('quoted', 'confirmed', 'ordered', 'scheduled') OR (code IS NOT NULL
        AND now_minor IS NOT NULL AND next_minor IS NOT NULL))
) STRICT;
-- K11: a relay has one offer and one confirmed change at a time; another replaces it by name.
CREATE UNIQUE INDEX plan_changes_one_offer ON plan_changes (relay_id)
    WHERE state IN ('wanted', 'quoted');
CREATE UNIQUE INDEX plan_changes_one_live ON plan_changes (relay_id)
    WHERE state IN ('confirmed', 'ordered', 'scheduled');
CREATE INDEX plan_changes_tenant ON plan_changes (tenant);
CREATE INDEX plan_changes_invoice ON plan_changes (invoice_id) WHERE invoice_id IS NOT NULL;
CREATE INDEX plan_changes_open ON plan_changes (state)
    WHERE state IN ('wanted', 'quoted', 'confirmed', 'ordered', 'scheduled');

-- A relay whose subscription ended runs until lapses_at (billing time) and waits for `resume`;
-- resumes: it is ordered again by itself when what was paid for has run out.
ALTER TABLE hosted_relays ADD COLUMN lapses_at INTEGER;
ALTER TABLE hosted_relays ADD COLUMN resumes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX hosted_relays_lapses ON hosted_relays (lapses_at) WHERE lapses_at IS NOT NULL;

-- The subscription whose end at the period's end is known here; another's wish is noticed once.
ALTER TABLE tenants ADD COLUMN ending_subscription_id TEXT;
-- Quantities by price id, JSON, as Purser last left or found them: another's edit is noticed.
ALTER TABLE tenants ADD COLUMN seats TEXT;

CREATE TABLE changes_next (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    kind TEXT NOT NULL CHECK (kind IN ('create', 'add', 'add_later', 'upgrade', 'upgrade_later',
        'set', 'reduce', 'cancel', 'cancel_now', 'keep')),
    step TEXT NOT NULL CHECK (step IN ('items', 'invoice', 'done')),
    quantities TEXT NOT NULL,
    relays TEXT NOT NULL,
    items_operation_id TEXT NOT NULL UNIQUE,
    invoice_operation_id TEXT NOT NULL UNIQUE,
    invoice_id TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    done_at INTEGER,
    outcome TEXT,
    proration_at INTEGER,
    begun_at INTEGER
) STRICT;
INSERT INTO changes_next (id, tenant, kind, step, quantities, relays, items_operation_id,
    invoice_operation_id, invoice_id, attempts, created_at, done_at, outcome)
SELECT id, tenant, kind, step, quantities, relays, items_operation_id, invoice_operation_id,
    invoice_id, attempts, created_at, done_at, outcome FROM changes;
DROP TABLE changes;
ALTER TABLE changes_next RENAME TO changes;
CREATE UNIQUE INDEX changes_one_running ON changes (tenant) WHERE done_at IS NULL;
