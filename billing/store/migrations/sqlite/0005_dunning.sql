-- Dunning: one window for each invoice that nobody paid, and the clock that counts its time.

CREATE TABLE dunning_windows (
    invoice_id TEXT PRIMARY KEY REFERENCES invoices (id),
    tenant TEXT NOT NULL REFERENCES tenants (pubkey),
    due_at INTEGER NOT NULL,
    opened_at INTEGER NOT NULL,
    day INTEGER,
    message_key TEXT,
    taken_at INTEGER,
    told_at INTEGER,
    told_clock INTEGER,
    extra_s INTEGER NOT NULL DEFAULT 0,
    pause_clock INTEGER,
    pause_s INTEGER NOT NULL DEFAULT 0,
    promised_at INTEGER,
    waits_for TEXT,
    waits_since INTEGER,
    next_look_at INTEGER,
    closed_at INTEGER,
    outcome TEXT CHECK (outcome IN ('paid', 'void', 'gone', 'ended')),
    end_subscription_id TEXT,
    CHECK ((closed_at IS NULL) = (outcome IS NULL))
) STRICT;
CREATE INDEX dunning_windows_open ON dunning_windows (next_look_at) WHERE closed_at IS NULL;
CREATE INDEX dunning_windows_tenant ON dunning_windows (tenant) WHERE closed_at IS NULL;
CREATE INDEX dunning_windows_ending ON dunning_windows (invoice_id)
    WHERE end_subscription_id IS NOT NULL;

-- Steps are never skipped back, and what is closed stays closed.
CREATE TRIGGER dunning_windows_guard BEFORE UPDATE ON dunning_windows
WHEN OLD.closed_at IS NOT NULL AND (NEW.closed_at IS NULL OR NEW.outcome <> OLD.outcome)
    OR NEW.day < OLD.day OR (OLD.day IS NOT NULL AND NEW.day IS NULL)
BEGIN SELECT RAISE(ABORT, 'illegal change of a dunning window'); END;

-- One row: counted time, the last sign of life, and what was away at it.
CREATE TABLE dunning_clock (
    id TEXT PRIMARY KEY CHECK (id = 'clock'),
    elapsed_s INTEGER NOT NULL,
    beat_at INTEGER,
    beat_billing_at INTEGER,
    down TEXT NOT NULL DEFAULT '',
    down_since INTEGER,
    paused_at INTEGER,
    paused_why TEXT,
    count_from INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX invoices_owed ON invoices (created_at) WHERE status IN ('open', 'uncollectible');
CREATE INDEX activity_kind ON activity (kind, at);
