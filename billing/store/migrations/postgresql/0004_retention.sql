-- What retention deletes by, and where dead letters are found.

CREATE INDEX inbox_events_handled ON inbox_events (handled_at) WHERE handled_at IS NOT NULL;
CREATE INDEX inbox_events_failed ON inbox_events (received_at) WHERE state = 'failed';
CREATE INDEX rejected_deliveries_at ON rejected_deliveries (at);
