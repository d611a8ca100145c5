-- What a mailing would do, read in one transaction that writes nothing, so that the figures agree.

-- name: preview_moment
-- The time of this transaction, and the stored mailing if $mailing_id is given.
SELECT now() AS read_at, m.* FROM (SELECT $mailing_id::bigint AS wanted) w LEFT JOIN mailings m ON m.id = w.wanted;

-- name: preview_is_drawn
SELECT EXISTS (
  SELECT FROM buckets b
  JOIN mailing_samples s ON s.bucket = b.bucket AND s.mailing_id = $mailing_id AND s.filter_hash = $hash_
);

-- fragment: could_get_it
-- Whether client `c` matches and could still get the mailing; more conditions follow. If the mailing has
-- begun ($mailing_id, else NULL), clients with a message count while it is pending, and a fixed audience
-- ($fixed) takes nobody in behind its expansion. The LIMIT makes it a look-up by the key: without
-- statistics of a new mailing the planner might read all of it for every client. Messages without a row are
-- read once, and looked up in memory.
LEFT JOIN expansions e ON e.bucket = c.bucket AND e.mailing_id = $mailing_id
LEFT JOIN LATERAL (
  SELECT status FROM messages
  WHERE $mailing_id::bigint IS NOT NULL AND bucket = c.bucket AND mailing_id = $mailing_id AND client_id = c.id LIMIT 1
) m ON true
WHERE ($tags::text[] IS NULL OR c.tag = ANY ($tags))
  AND ($operator_codes::text[] IS NULL OR c.operator_code = ANY ($operator_codes))
  AND ($timezones::text[] IS NULL OR c.timezone = ANY ($timezones))
  AND ($attributes::jsonb IS NULL OR c.attributes @> $attributes)
  AND ($chosen_ids::bigint[] IS NULL OR c.id = ANY ($chosen_ids))
  /* further conditions */
  AND (m.status = {Status.PENDING} OR m.status IS NULL AND (
    c.id IN (SELECT unnest(client_ids) FROM batches WHERE mailing_id = $mailing_id AND fresh)
    OR (
      NOT $fixed::boolean OR e.bucket IS NULL
      OR NOT e.finished AND c.id > e.last_client_id AND c.created_at <= e.started_at
    ) AND c.id NOT IN (SELECT unnest(client_ids) FROM blocks WHERE mailing_id = $mailing_id)
  ))

-- fragment: capped
-- Whether a client has reached the frequency cap ($cap messages of other mailings since $capped_since),
-- if that is asked ($capped). `s` is what was sent to them. Messages are looked up only for clients
-- who may have reached it by the number and times alone.
$capped::boolean AND cardinality(s.mailing_ids) >= $cap::int AND CASE WHEN (
  SELECT count(*) FROM unnest(s.mailing_ids, s.sent_at) AS sent (mailing_id, at)
  WHERE at > $capped_since::timestamptz AND mailing_id IS DISTINCT FROM $mailing_id
) >= $cap THEN (
  SELECT count(*)
  FROM unnest(s.mailing_ids, s.sent_at) AS sent (mailing_id, at)
  LEFT JOIN LATERAL (
    SELECT status FROM messages
    WHERE bucket = s.bucket AND mailing_id = sent.mailing_id AND client_id = s.client_id
    UNION ALL
    SELECT status FROM unwritten_v1(s.bucket, sent.mailing_id, s.client_id)
    LIMIT 1
  ) t ON true
  WHERE at > $capped_since AND mailing_id IS DISTINCT FROM $mailing_id AND (
    t.status IS NULL
    OR t.status NOT IN ({Status.FAILED}, {Status.EXPIRED}, {Status.CANCELLED}, {Status.SKIPPED})
  )
) >= $cap ELSE false END

-- name: preview_groups
-- The number of clients who could get it, by receive window and by the reason why they are skipped or
-- NONE. Clients at the cap are counted from what was sent, which mostly reads less than all clients,
-- and subtracted from the others. A window's next opening is computed once for all who share it.
SELECT timezone, window_start, window_length, reason, sum(n)::bigint AS n,
  window_opens_at(timezone, window_start, window_length, $start::timestamptz) AS opens_at
FROM (
  SELECT c.timezone, c.window_start, c.window_length, 
    CASE WHEN c.opted_out THEN {Reason.OPTED_OUT} ELSE {Reason.NONE} END AS reason, count(*) AS n
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
  CROSS JOIN LATERAL (VALUES ({Reason.FREQUENCY_CAP}, k.n), ({Reason.NONE}, -k.n)) v (reason, n)
) g
GROUP BY 1, 2, 3, 4
HAVING sum(n) > 0;

-- name: preview_texts
-- What the texts of all are made of who could get it and have not opted out.
SELECT c.timezone, c.window_start, c.window_length, c.phone, c.operator_code, c.tag, c.attributes,
  EXISTS (SELECT FROM client_sends s WHERE s.bucket = c.bucket AND s.client_id = c.id AND {capped} OFFSET 0) AS capped
FROM clients c
{could_get_it}
  AND NOT c.opted_out AND $start::timestamptz IS NOT NULL;

-- name: preview_in_order
-- For the rest of the transaction, ordered rows are read in their order: without statistics the
-- planner takes it for cheaper to read and sort all clients.
SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true),
  set_config('enable_seqscan', 'off', true);

-- name: preview_samples
-- The first candidates by id who are not skipped, each with the earliest time of sending: the first
-- ones of each bucket, and of these again the first.
SELECT s.*
FROM buckets b
CROSS JOIN LATERAL (
  SELECT c.*, window_opens_at(c.timezone, c.window_start, c.window_length, $start::timestamptz) AS due_at
  FROM clients c
  {could_get_it}
    AND c.bucket = b.bucket AND NOT c.opted_out
    AND window_opens_at(c.timezone, c.window_start, c.window_length, $start) < coalesce($end::timestamptz, 'infinity')
    AND NOT EXISTS (SELECT FROM client_sends s WHERE s.bucket = c.bucket AND s.client_id = c.id AND {capped} OFFSET 0)
  ORDER BY c.id
  LIMIT $limit
) s
ORDER BY s.id
LIMIT $limit;

-- name: preview_windows
-- When the windows of several groups are open between two moments; each window is the first one at or
-- after the end of the one before.
WITH RECURSIVE opened AS (
  SELECT who, timezone, window_start, window_length,
    window_opens_at(timezone, window_start, window_length, $since::timestamptz) AS opens_at,
    window_closes_at(timezone, window_start, window_length, $since) AS closes_at
  FROM unnest($timezones::text[], $starts::time[], $lengths::interval[]) WITH ORDINALITY
    AS g (timezone, window_start, window_length, who)
  UNION ALL
  SELECT who, timezone, window_start, window_length,
    window_opens_at(timezone, window_start, window_length, closes_at),
    window_closes_at(timezone, window_start, window_length, closes_at)
  FROM opened WHERE closes_at < $until::timestamptz
)
SELECT who, opens_at, least(closes_at, $until) AS closes_at FROM opened WHERE opens_at < $until ORDER BY who, opens_at;
