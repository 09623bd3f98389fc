-- Tenants' cards as last seen at Stripe, and the pages asked for to leave one.

-- name: get
-- The card of a tenant.
SELECT * FROM cards WHERE tenant = :tenant

-- name: due
-- Cards to look at: asked for (wire time), or about to expire (billing time).
SELECT * FROM cards WHERE look_due_at <= :now OR warn_at <= :billing_now
ORDER BY COALESCE(look_due_at, 0), tenant LIMIT :count

-- name: want_look
-- Look at it at this time or earlier.
INSERT INTO cards (tenant, look_due_at, look_wishes) VALUES (:tenant, :due_at, 1)
ON CONFLICT (tenant) DO UPDATE SET
    look_due_at = CASE
        WHEN cards.look_due_at IS NULL OR cards.look_due_at > excluded.look_due_at
        THEN excluded.look_due_at ELSE cards.look_due_at
    END,
    look_wishes = cards.look_wishes + 1

-- name: want_default
-- This one is to be made the default; the row is there.
UPDATE cards SET wanted_method_id = :method_id WHERE tenant = :tenant

-- name: store
-- As just seen.
UPDATE cards
SET method_id = :method_id, brand = :brand, last4 = :last4, exp_month = :exp_month,
    exp_year = :exp_year, since = :since, billing_since = :billing_since, warn_at = :warn_at
WHERE tenant = :tenant

-- name: looked
-- Nothing more to do, unless somebody asked again meanwhile.
UPDATE cards SET look_due_at = NULL, look_attempts = 0, wanted_method_id = NULL
WHERE tenant = :tenant AND look_wishes = :seen_wishes

-- name: look_failed
-- Look again later.
UPDATE cards SET look_due_at = :next_at, look_attempts = look_attempts + 1 WHERE tenant = :tenant

-- name: insert_page
-- Asked for, unless one is on its way.
INSERT INTO card_pages (id, tenant, kind, operation_id, created_at, next_try_at)
VALUES (:id, :tenant, :kind, :operation_id, :now, :now)
ON CONFLICT DO NOTHING

-- name: pages_due
-- Pages to be made.
SELECT * FROM card_pages WHERE next_try_at <= :now ORDER BY next_try_at, id LIMIT :count

-- name: page_of_session
-- Which page this was.
SELECT * FROM card_pages WHERE session_id = :session_id

-- name: page_tried
-- Another try, perhaps of the other kind, with a new key where it needs one.
UPDATE card_pages
SET kind = :kind, operation_id = :operation_id, attempts = :attempts, next_try_at = :next_at,
    state = :state
WHERE id = :id AND state = 'wanted'

-- name: page_sent
-- Made, and its tenant told.
UPDATE card_pages SET state = 'sent', session_id = :session_id, next_try_at = NULL
WHERE id = :id AND state = 'wanted'

-- name: page_completed
-- A card was left there; only once.
UPDATE card_pages SET state = 'completed' WHERE id = :id AND state = 'sent'
