-- Changes of a relay's plan, from the wish for a quote to its end; relays that outlive their
-- subscription; more kinds of changes of a subscription.

CREATE TABLE plan_changes (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (pubkey),
    relay_id TEXT COLLATE "C" NOT NULL REFERENCES hosted_relays (id),
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('upgrade', 'downgrade')),
    from_plan TEXT COLLATE "C" NOT NULL,
    to_plan TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('wanted', 'quoted', 'confirmed', 'ordered',
        'scheduled', 'applied', 'undone', 'cancelled', 'replaced', 'expired')),
    code TEXT COLLATE "C",
    currency TEXT COLLATE "C" NOT NULL,
    now_minor BIGINT,
    next_minor BIGINT,
    next_at BIGINT,
    proration_at BIGINT,
    quote_expires_at BIGINT,
    due_until BIGINT,
    invoice_id TEXT COLLATE "C",
    applied_rev BIGINT,
    attempts BIGINT NOT NULL DEFAULT 0,
    next_try_at BIGINT,
    created_at BIGINT NOT NULL,
    confirmed_at BIGINT,
    ended_at BIGINT,
    problem TEXT COLLATE "C",
    CHECK (state NOT IN ('quoted', 'confirmed', 'ordered', 'scheduled') OR (code IS NOT NULL
        AND now_minor IS NOT NULL AND next_minor IS NOT NULL))
);
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
ALTER TABLE hosted_relays ADD COLUMN lapses_at BIGINT;
ALTER TABLE hosted_relays ADD COLUMN resumes BIGINT NOT NULL DEFAULT 0;
CREATE INDEX hosted_relays_lapses ON hosted_relays (lapses_at) WHERE lapses_at IS NOT NULL;

-- The subscription whose end at the period's end is known here; another's wish is noticed once.
ALTER TABLE tenants ADD COLUMN ending_subscription_id TEXT COLLATE "C";
-- Quantities by price id, JSON, as Purser last left or found them: another's edit is noticed.
ALTER TABLE tenants ADD COLUMN seats TEXT COLLATE "C";

ALTER TABLE changes DROP CONSTRAINT changes_kind_check;
ALTER TABLE changes ADD CONSTRAINT changes_kind_check CHECK (kind IN ('create', 'add', 'add_later',
    'upgrade', 'upgrade_later', 'set', 'reduce', 'cancel', 'cancel_now', 'keep'));
ALTER TABLE changes ADD COLUMN proration_at BIGINT;
ALTER TABLE changes ADD COLUMN begun_at BIGINT;
