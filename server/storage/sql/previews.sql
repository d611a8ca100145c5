-- What a mailing would do. Read in one transaction that writes nothing, so that the figures agree.

-- name: preview_moment
-- The clock of this transaction, and the mailing if $1 names a stored one.
SELECT now() AS read_at, m.* FROM (SELECT $1::bigint AS wanted) w LEFT JOIN mailings m ON m.id = w.wanted;

-- fragment: could_get_it
-- Whether client `c` matches and could still get the mailing: to be followed by more conditions. Of a
-- mailing that has begun ($6, else NULL) those with a message count while it is pending; into a fixed
-- audience ($7) nobody is taken in behind its expansion. The LIMIT makes it a look-up by the key: the
-- planner knows nothing of a new mailing and might read all of it instead, again and again.
LEFT JOIN expansions e ON e.bucket = c.bucket AND e.mailing_id = $6
LEFT JOIN LATERAL (
  SELECT status FROM messages
  WHERE $6::bigint IS NOT NULL AND bucket = c.bucket AND mailing_id = $6 AND client_id = c.id LIMIT 1
) m ON true
WHERE ($1::text[] IS NULL OR c.tag = ANY ($1))
  AND ($2::text[] IS NULL OR c.operator_code = ANY ($2))
  AND ($3::text[] IS NULL OR c.timezone = ANY ($3))
  AND ($4::jsonb IS NULL OR c.attributes @> $4)
  AND ($5::bigint[] IS NULL OR c.id = ANY ($5))
  AND (m.status = 1 OR m.status IS NULL AND (
    NOT $7::boolean OR e.bucket IS NULL
    OR NOT e.finished AND c.id > e.last_client_id AND c.created_at <= e.started_at
  ))

-- fragment: capped
-- Whether what was sent to a client, `s`, reaches the cap, if that is looked at ($8): $9 messages of
-- other mailings since $10. First by their number and times alone: messages are looked up for those
-- who may have reached it.
$8::boolean AND cardinality(s.mailing_ids) >= $9::int AND CASE WHEN (
  SELECT count(*) FROM unnest(s.mailing_ids, s.sent_at) AS sent (mailing_id, at)
  WHERE at > $10::timestamptz AND mailing_id IS DISTINCT FROM $6
) >= $9 THEN (
  SELECT count(*)
  FROM unnest(s.mailing_ids, s.sent_at) AS sent (mailing_id, at)
  LEFT JOIN LATERAL (
    SELECT status FROM messages
    WHERE bucket = s.bucket AND mailing_id = sent.mailing_id AND client_id = s.client_id LIMIT 1
  ) t ON true
  WHERE at > $10 AND mailing_id IS DISTINCT FROM $6 AND (t.status IS NULL OR t.status NOT IN (3, 4, 5, 6))
) >= $9 ELSE false END

-- name: preview_groups
-- Those who could get it, by receive window and by the reason why they are left out, 0 if they
-- are not. Whom the cap keeps out is counted from what was sent, which is mostly less than a look
-- at each client, and taken off the others. A window's next opening is asked once for all who share it.
SELECT timezone, window_start, window_length, reason, sum(n)::bigint AS n,
  window_opens_at(timezone, window_start, window_length, $11::timestamptz) AS opens_at
FROM (
  SELECT c.timezone, c.window_start, c.window_length, CASE WHEN c.opted_out THEN 8 ELSE 0 END AS reason, count(*) AS n
  FROM clients c
  {could_get_it}
  GROUP BY 1, 2, 3, 4
  UNION ALL
  SELECT k.timezone, k.window_start, k.window_length, v.reason, v.n
  FROM (
    SELECT c.timezone, c.window_start, c.window_length, count(*) AS n
    FROM client_sends s
    CROSS JOIN LATERAL (SELECT * FROM clients WHERE bucket = s.bucket AND id = s.client_id LIMIT 1) c
    {could_get_it}
      AND NOT c.opted_out AND {capped}
    GROUP BY 1, 2, 3
  ) k
  CROSS JOIN LATERAL (VALUES (10, k.n), (0, -k.n)) v (reason, n)
) g
GROUP BY 1, 2, 3, 4
HAVING sum(n) > 0;

-- name: preview_in_order
-- For the rest of the transaction, rows that are asked for in an order are read in it: of clients
-- that were never analyzed the planner believes that it is cheaper to read and sort them all.
SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true),
  set_config('enable_seqscan', 'off', true);

-- name: preview_samples
-- The first candidates by id who are not left out, each with when it would be sent at the earliest:
-- from each bucket the first ones, of these again the first.
SELECT s.*
FROM buckets b
CROSS JOIN LATERAL (
  SELECT c.*, window_opens_at(c.timezone, c.window_start, c.window_length, $11::timestamptz) AS due_at
  FROM clients c
  {could_get_it}
    AND c.bucket = b.bucket AND NOT c.opted_out
    AND window_opens_at(c.timezone, c.window_start, c.window_length, $11) < coalesce($12::timestamptz, 'infinity')
    AND NOT EXISTS (SELECT FROM client_sends s WHERE s.bucket = c.bucket AND s.client_id = c.id AND {capped} OFFSET 0)
  ORDER BY c.id
  LIMIT $13
) s
ORDER BY s.id
LIMIT $13;

-- name: preview_windows
-- When the windows of several groups are open between two moments, one after the other:
-- the next one is the first at or after the end of the one before.
WITH RECURSIVE opened AS (
  SELECT who, timezone, window_start, window_length,
    window_opens_at(timezone, window_start, window_length, $4::timestamptz) AS opens_at,
    window_closes_at(timezone, window_start, window_length, $4) AS closes_at
  FROM unnest($1::text[], $2::time[], $3::interval[]) WITH ORDINALITY
    AS g (timezone, window_start, window_length, who)
  UNION ALL
  SELECT who, timezone, window_start, window_length,
    window_opens_at(timezone, window_start, window_length, closes_at),
    window_closes_at(timezone, window_start, window_length, closes_at)
  FROM opened WHERE closes_at < $5::timestamptz
)
SELECT who, opens_at, least(closes_at, $5) AS closes_at FROM opened WHERE opens_at < $5 ORDER BY who, opens_at;
