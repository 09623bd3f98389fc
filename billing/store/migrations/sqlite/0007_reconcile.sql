-- Which sweep of Stripe's list last met a tenant's subscription: an interrupted one goes on where
-- it stopped, and who was never met has one that is over.
ALTER TABLE tenants ADD COLUMN seen_sweep INTEGER;
