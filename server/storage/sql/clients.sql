-- Clients, one by one and page by page.

-- name: next_client_no
SELECT nextval('client_no');

-- name: insert_phone
-- The key over all buckets: a second client with the phone fails here.
INSERT INTO client_phones (phone, bucket, client_id) VALUES ($1, $2, $3);

-- name: delete_phone
DELETE FROM client_phones WHERE phone = $1;

-- name: insert_client
INSERT INTO clients (
  bucket, id, phone, operator_code, tag, timezone, window_start, window_length, attributes, opted_out
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
RETURNING *;

-- name: get_client
SELECT * FROM clients WHERE bucket = $1 AND id = $2;

-- name: find_phone
SELECT bucket, client_id FROM client_phones WHERE phone = $1;

-- name: lock_client
SELECT * FROM clients WHERE bucket = $1 AND id = $2 FOR UPDATE;

-- name: update_client
-- The client stays in its bucket, also when the phone changes.
UPDATE clients
SET phone = $3, operator_code = $4, tag = $5, timezone = $6, window_start = $7, window_length = $8,
  attributes = $9, opted_out = $10, version = version + 1, updated_at = now()
WHERE bucket = $1 AND id = $2
RETURNING *;

-- name: delete_client
DELETE FROM clients WHERE bucket = $1 AND id = $2;

-- name: record_client_changes
-- The last statement of every transaction that writes clients: it holds the bucket's
-- number until the commit, so the order of numbers is the order of commits.
WITH tick AS (
  UPDATE client_change_seqs SET seq = seq + 1 WHERE bucket = $1 RETURNING seq
)
INSERT INTO client_changes (bucket, seq, client_ids) SELECT $1, seq, $2::bigint[] FROM tick;

-- name: list_clients
-- A page over all buckets in the order of ids: from each bucket the first ones behind the
-- key, of these again the first.
SELECT c.*
FROM buckets b
CROSS JOIN LATERAL (
  SELECT *
  FROM clients
  WHERE bucket = b.bucket AND id > $1
    AND ($3::text[] IS NULL OR tag = ANY ($3))
    AND ($4::text[] IS NULL OR operator_code = ANY ($4))
    AND ($5::text[] IS NULL OR timezone = ANY ($5))
    AND ($6::jsonb IS NULL OR attributes @> $6)
    AND (NOT $7::boolean OR window_opens_at(timezone, window_start, window_length, now()) <= now())
  ORDER BY id
  LIMIT $2
) c
ORDER BY c.id
LIMIT $2;

-- name: list_chosen_clients
-- The same for a filter that names ids: these are looked up, whatever else it asks.
SELECT c.*
FROM buckets b
CROSS JOIN LATERAL (
  SELECT *
  FROM clients
  WHERE bucket = b.bucket AND id > $1 AND id = ANY ($8::bigint[])
    AND ($3::text[] IS NULL OR tag = ANY ($3))
    AND ($4::text[] IS NULL OR operator_code = ANY ($4))
    AND ($5::text[] IS NULL OR timezone = ANY ($5))
    AND ($6::jsonb IS NULL OR attributes @> $6)
    AND (NOT $7::boolean OR window_opens_at(timezone, window_start, window_length, now()) <= now())
) c
ORDER BY c.id
LIMIT $2;

-- name: export_clients
-- Like list_clients, without throwing away what was read: $2 from each bucket, and of these
-- all up to the id behind which a bucket may have more.
WITH piece AS (
  SELECT c.*
  FROM buckets b
  CROSS JOIN LATERAL (
    SELECT *
    FROM clients
    WHERE bucket = b.bucket AND id > $1
      AND ($3::text[] IS NULL OR tag = ANY ($3))
      AND ($4::text[] IS NULL OR operator_code = ANY ($4))
      AND ($5::text[] IS NULL OR timezone = ANY ($5))
      AND ($6::jsonb IS NULL OR attributes @> $6)
    ORDER BY id
    LIMIT $2
  ) c
), horizon AS (
  SELECT max(id) AS id FROM piece GROUP BY bucket HAVING count(*) = $2
)
SELECT * FROM piece WHERE id <= coalesce((SELECT min(id) FROM horizon), 9223372036854775807) ORDER BY id;
