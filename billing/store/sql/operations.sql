-- Operations: every write to Stripe has its id stored before the call (M11).

-- name: insert
-- A new logical attempt.
INSERT INTO operations (id, kind, subject, created_at) VALUES (:id, :kind, :subject, :created_at)

-- name: running
-- The unfinished operation of this kind on this subject.
SELECT * FROM operations WHERE kind = :kind AND subject = :subject AND finished_at IS NULL

-- name: get
-- One, by its id.
SELECT * FROM operations WHERE id = :id

-- name: tried
-- One more call was made with this key.
UPDATE operations SET attempts = attempts + 1 WHERE id = :id

-- name: finish
-- Its end is known.
UPDATE operations SET finished_at = :now, result = :result WHERE id = :id AND finished_at IS NULL

-- name: refuse
-- None of them did anything at Stripe.
UPDATE operations SET finished_at = COALESCE(finished_at, :now), result = :result
WHERE kind = :kind AND subject = :subject

-- name: of_subject
-- All operations on a subject, oldest first.
SELECT * FROM operations WHERE subject = :subject ORDER BY created_at, id
