-- A mailing is gone with its row; what belongs to it is removed afterwards, see removals.sql.

-- name: close_expansions
-- Waits for steps in progress; later ones find nothing to do.
UPDATE expansions SET finished = true WHERE mailing_id = $mailing_id;

-- name: has_batches
SELECT EXISTS (SELECT 1 FROM buckets b JOIN batches t ON t.bucket = b.bucket AND t.mailing_id = $mailing_id);

-- name: delete_batches
-- After this no settle finds its batch. Returns how many messages stood in batches only.
WITH gone AS (
  DELETE FROM batches t USING buckets b WHERE t.bucket = b.bucket AND t.mailing_id = $mailing_id
  RETURNING CASE WHEN t.fresh THEN cardinality(t.client_ids) ELSE 0 END AS unwritten
)
SELECT coalesce(sum(unwritten), 0)::bigint FROM gone;

-- name: delete_mailing
DELETE FROM mailings WHERE id = $mailing_id;

-- name: delete_rate_slots
DELETE FROM rate_slots WHERE key = 'mailing/' || $mailing_id::bigint;

-- name: delete_day_quotas
DELETE FROM day_quotas WHERE key = 'mailing/' || $mailing_id::bigint;
