-- What a tenant can be charged with at Stripe, as last seen, and the pages asked for to leave a card.

CREATE TABLE cards (
    tenant TEXT COLLATE "C" PRIMARY KEY REFERENCES tenants (pubkey),
    method_id TEXT COLLATE "C",
    brand TEXT COLLATE "C",
    last4 TEXT COLLATE "C",
    exp_month BIGINT,
    exp_year BIGINT,
    -- Since when it is the default: wire time, and billing time.
    since BIGINT,
    billing_since BIGINT,
    wanted_method_id TEXT COLLATE "C",
    look_due_at BIGINT,
    look_attempts BIGINT NOT NULL DEFAULT 0,
    look_wishes BIGINT NOT NULL DEFAULT 0,
    -- Billing time.
    warn_at BIGINT
);
CREATE INDEX cards_look_due ON cards (look_due_at) WHERE look_due_at IS NOT NULL;
CREATE INDEX cards_warn_at ON cards (warn_at) WHERE warn_at IS NOT NULL;

CREATE TABLE card_pages (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (pubkey),
    kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('portal', 'checkout')),
    state TEXT COLLATE "C" NOT NULL DEFAULT 'wanted'
        CHECK (state IN ('wanted', 'sent', 'completed', 'failed')),
    operation_id TEXT COLLATE "C" NOT NULL UNIQUE,
    session_id TEXT COLLATE "C" UNIQUE,
    created_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    next_try_at BIGINT
);
-- One at a time: asking twice gives one page.
CREATE UNIQUE INDEX card_pages_one_wanted ON card_pages (tenant) WHERE state = 'wanted';
CREATE INDEX card_pages_due ON card_pages (next_try_at) WHERE next_try_at IS NOT NULL;
