-- Clients, one by one and page by page.

-- name: add_clients
-- In one round trip, each if nothing is special about the phone and the call; else that one is not added, and has no row.
SELECT *
FROM add_clients_v1(
  $buckets, $phones, $operator_codes, $tags, $timezones, $window_starts, $window_lengths, $attributes, $request_buckets,
  $request_ids, $methods, $digests
);

-- name: insert_phone
-- The key spans all buckets: a second client with the phone fails here.
INSERT INTO client_phones (phone, bucket, client_id) VALUES ($phone, $bucket, $client_id);

-- name: claim_phone
-- Gives a phone that nobody has to a new client; returns no row for one that is taken. A number is taken
-- only for a phone that is free.
INSERT INTO client_phones (phone, bucket, client_id)
SELECT $phone::text, $bucket::int, nextval('client_no') * (SELECT count(*) FROM buckets) + $bucket::int
WHERE NOT EXISTS (SELECT 1 FROM client_phones WHERE phone = $phone)
RETURNING client_id;

-- name: delete_phone
DELETE FROM client_phones WHERE phone = $phone;

-- name: insert_client
INSERT INTO clients (
  bucket, id, phone, operator_code, tag, timezone, window_start, window_length, attributes, opted_out, received,
  opt_out_at, opt_out_source
)
VALUES (
  $bucket, $client_id, $phone, $operator_code, $tag, $timezone, $window_start, $window_length, $attributes, $opted_out,
  $received, CASE WHEN $opt_out_source::int > {OptOutOrigin.UNKNOWN} THEN now() END, $opt_out_source
)
RETURNING *;

-- name: get_client
SELECT * FROM clients WHERE bucket = $bucket AND id = $client_id;

-- name: find_phone
SELECT bucket, client_id FROM client_phones WHERE phone = $phone;

-- name: lock_client
SELECT * FROM clients WHERE bucket = $bucket AND id = $client_id FOR UPDATE;

-- name: update_client
-- The client stays in its bucket, also when the phone changes. An opt-out keeps its origin until it is taken back.
UPDATE clients
SET phone = $phone, operator_code = $operator_code, tag = $tag, timezone = $timezone, window_start = $window_start,
  window_length = $window_length, attributes = $attributes, opted_out = $opted_out, received = $received,
  opt_out_at = CASE WHEN NOT $opted_out THEN NULL WHEN opted_out THEN opt_out_at
    WHEN $opt_out_source::int > {OptOutOrigin.UNKNOWN} THEN moment.at END,
  opt_out_source = CASE WHEN NOT $opted_out THEN {OptOutOrigin.UNKNOWN} WHEN opted_out THEN opt_out_source
    ELSE $opt_out_source END,
  opt_out_word = CASE WHEN opted_out AND $opted_out THEN opt_out_word ELSE '' END,
  opt_out_endpoint = CASE WHEN opted_out AND $opted_out THEN opt_out_endpoint ELSE '' END,
  version = version + 1, updated_at = now()
FROM (SELECT now() AS at) moment
WHERE bucket = $bucket AND id = $client_id
RETURNING clients.*;

-- name: delete_client
DELETE FROM clients WHERE bucket = $bucket AND id = $client_id;

-- name: record_client_changes
-- The last statement of every transaction that writes clients. It locks the bucket's number until the
-- commit, so the order of numbers is the order of commits.
WITH tick AS (
  UPDATE client_change_seqs SET seq = seq + 1 WHERE bucket = $bucket RETURNING seq
)
INSERT INTO client_changes (bucket, seq, client_ids) SELECT $bucket, seq, $client_ids::bigint[] FROM tick;

-- fragment: matches
-- The filter of a request, except for its ids; NULL matches everybody.
($tags::text[] IS NULL OR c.tag = ANY ($tags))
    AND ($operator_codes::text[] IS NULL OR c.operator_code = ANY ($operator_codes))
    AND ($timezones::text[] IS NULL OR c.timezone = ANY ($timezones))
    AND ($attributes::jsonb IS NULL OR c.attributes @> $attributes)
    /* further conditions */

-- name: default_window
-- The window of clients without one, by the quiet hours of the service.
SELECT default_window_start, default_window_length FROM dispatch_settings;

-- fragment: listed
-- The clients of one bucket behind the key of a page.
SELECT *
  FROM clients c
  WHERE bucket = b.bucket AND id > $after
    AND {matches}
    AND (NOT $receiving_now::boolean OR window_opens_at(
      timezone, coalesce(window_start, $default_start::time), coalesce(window_length, $default_length::interval), now()
    ) <= now())

-- name: list_clients
-- A page over all buckets in the order of ids: the first ones behind the key in each bucket, and of
-- these again the first.
SELECT c.*
FROM buckets b
CROSS JOIN LATERAL (
  {listed}
  ORDER BY id
  LIMIT $limit
) c
ORDER BY c.id
LIMIT $limit;

-- name: list_chosen_clients
-- The same for a filter with ids, which are looked up whatever else it contains.
SELECT c.*
FROM buckets b
CROSS JOIN LATERAL (
  {listed}
    AND id = ANY ($chosen_ids::bigint[])
) c
ORDER BY c.id
LIMIT $limit;

-- name: export_clients
-- Like list_clients, but uses all rows that were read: $limit of each bucket, and of these all up to
-- the id behind which a bucket may have more.
WITH piece AS (
  SELECT c.*
  FROM buckets b
  CROSS JOIN LATERAL (
    SELECT *
    FROM clients c
    WHERE bucket = b.bucket AND id > $after
      AND {matches}
    ORDER BY id
    LIMIT $limit
  ) c
), horizon AS (
  SELECT max(id) AS id FROM piece GROUP BY bucket HAVING count(*) = $limit
)
SELECT * FROM piece WHERE id <= coalesce((SELECT min(id) FROM horizon), 9223372036854775807) ORDER BY id;

-- name: end_of_sample
-- The rank and the id of the last client of a sample, in the order of the ranks that $seed gives. Reads all clients;
-- returns no row when the sample takes all who match.
SELECT hashint8extended(c.id, $seed) AS rank, c.id
FROM clients c
WHERE {matches}
  AND ($chosen_ids::bigint[] IS NULL OR c.id = ANY ($chosen_ids))
ORDER BY 1, 2
OFFSET $size::bigint - 1 LIMIT 1;

-- name: count_matching
-- How many clients match; opted out ones count. Reads all clients.
SELECT count(*)
FROM clients c
WHERE {matches}
  AND ($chosen_ids::bigint[] IS NULL OR c.id = ANY ($chosen_ids));
