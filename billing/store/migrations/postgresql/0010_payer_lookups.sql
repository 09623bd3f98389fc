-- When the payer's wallet was last asked about a payment in flight: where its schedule stands (M7).

ALTER TABLE payment_attempts ADD COLUMN payer_asked_at BIGINT;
