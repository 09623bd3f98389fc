-- The share of a paid invoice is stored with the payment itself, once for its invoice (its id says
-- which): a credit that an operator gave and that is still under way must not keep the payment out.

DROP INDEX refunds_one_live_credit;
CREATE UNIQUE INDEX refunds_one_live_credit ON refunds (tenant)
    WHERE state IN ('pending', 'in_flight') AND invoice_id IS NULL
    AND substr(id, 1, 11) <> 'ref_unused_';
