-- Dunning: one window for each invoice that nobody paid, and the clock that counts its time.

CREATE TABLE dunning_windows (
    invoice_id TEXT COLLATE "C" PRIMARY KEY REFERENCES invoices (id),
    tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (pubkey),
    due_at BIGINT NOT NULL,
    opened_at BIGINT NOT NULL,
    day BIGINT,
    message_key TEXT COLLATE "C",
    taken_at BIGINT,
    told_at BIGINT,
    told_clock BIGINT,
    extra_s BIGINT NOT NULL DEFAULT 0,
    pause_clock BIGINT,
    pause_s BIGINT NOT NULL DEFAULT 0,
    promised_at BIGINT,
    waits_for TEXT COLLATE "C",
    waits_since BIGINT,
    next_look_at BIGINT,
    closed_at BIGINT,
    outcome TEXT COLLATE "C" CHECK (outcome IN ('paid', 'void', 'gone', 'ended')),
    end_subscription_id TEXT COLLATE "C",
    CHECK ((closed_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX dunning_windows_open ON dunning_windows (next_look_at) WHERE closed_at IS NULL;
CREATE INDEX dunning_windows_tenant ON dunning_windows (tenant) WHERE closed_at IS NULL;
CREATE INDEX dunning_windows_ending ON dunning_windows (invoice_id)
    WHERE end_subscription_id IS NOT NULL;

-- Steps are never skipped back, and what is closed stays closed.
CREATE FUNCTION dunning_windows_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'illegal change of a dunning window'
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER dunning_windows_guard BEFORE UPDATE ON dunning_windows
FOR EACH ROW WHEN (OLD.closed_at IS NOT NULL
    AND (NEW.closed_at IS NULL OR NEW.outcome <> OLD.outcome)
    OR NEW.day < OLD.day OR (OLD.day IS NOT NULL AND NEW.day IS NULL))
EXECUTE FUNCTION dunning_windows_guard();

-- One row: counted time, the last sign of life, and what was away at it.
CREATE TABLE dunning_clock (
    id TEXT COLLATE "C" PRIMARY KEY CHECK (id = 'clock'),
    elapsed_s BIGINT NOT NULL,
    beat_at BIGINT,
    beat_billing_at BIGINT,
    down TEXT COLLATE "C" NOT NULL DEFAULT '',
    down_since BIGINT,
    paused_at BIGINT,
    paused_why TEXT COLLATE "C",
    count_from BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX invoices_owed ON invoices (created_at) WHERE status IN ('open', 'uncollectible');
CREATE INDEX activity_kind ON activity (kind, at);
