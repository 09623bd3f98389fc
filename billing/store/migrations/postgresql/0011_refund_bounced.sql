-- A card refund that succeeded can come back weeks later: done is not the last word of it.

DROP TRIGGER refunds_guard ON refunds;
CREATE TRIGGER refunds_guard BEFORE UPDATE OF state ON refunds
FOR EACH ROW WHEN (OLD.state <> NEW.state AND OLD.state || '>' || NEW.state NOT IN (
    'pending>in_flight', 'pending>failed', 'in_flight>done', 'in_flight>failed', 'failed>done',
    'done>failed'
)) EXECUTE FUNCTION refunds_guard();
