-- A card refund that succeeded can come back weeks later: done is not the last word of it.

DROP TRIGGER refunds_guard;
CREATE TRIGGER refunds_guard BEFORE UPDATE OF state ON refunds
WHEN OLD.state <> NEW.state AND OLD.state || '>' || NEW.state NOT IN (
    'pending>in_flight', 'pending>failed', 'in_flight>done', 'in_flight>failed', 'failed>done',
    'done>failed'
)
BEGIN SELECT RAISE(ABORT, 'illegal transition of a refund'); END;
