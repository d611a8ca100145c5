-- What a mailing would do, read in one transaction that writes nothing, so that the figures agree.

-- name: preview_moment
-- The time of this transaction, the window of clients without one, and the stored mailing if $mailing_id is given.
SELECT now() AS read_at, s.default_window_start, s.default_window_length, m.*
FROM (SELECT $mailing_id::bigint AS wanted) w CROSS JOIN dispatch_settings s LEFT JOIN mailings m ON m.id = w.wanted;

-- name: preview_holidays
SELECT days FROM calendars WHERE name = $name;

-- fragment: window
-- The window of client `c`, or that of clients without one.
coalesce(c.window_start, $default_start::time) AS window_start,
  CASE WHEN c.window_start IS NULL THEN $default_length::interval ELSE c.window_length END AS window_length

-- name: preview_is_drawn
SELECT EXISTS (
  SELECT 1 FROM buckets b
  JOIN mailing_samples s ON s.bucket = b.bucket AND s.mailing_id = $mailing_id AND s.filter_hash = $hash_
);

-- fragment: could_get_it
-- Whether client `c` matches and could still get the mailing; more conditions follow. If the mailing has
-- begun ($mailing_id, else 0), clients with a message count while it is pending, and a fixed audience
-- ($fixed) takes nobody in behind its expansion. The LIMIT makes it a look-up by the key: without
-- statistics of a new mailing the planner might read all of it for every client. Messages without a row are
-- read once, and looked up in memory.
LEFT JOIN expansions e ON e.bucket = c.bucket AND e.mailing_id = $mailing_id
LEFT JOIN LATERAL (
  SELECT status FROM messages
  WHERE bucket = c.bucket AND mailing_id = $mailing_id::bigint AND client_id = c.id LIMIT 1
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

-- fragment: recent
-- What was sent to a client of late, apart from this mailing. `s` is what was sent to them.
unnest(s.mailing_ids, s.sent_at) AS sent (id, at)
  WHERE at > $capped_since::timestamptz AND sent.id <> $mailing_id

-- fragment: capped
-- Whether a client has reached the frequency cap ($cap messages of other mailings since $capped_since),
-- if that is asked ($capped). Messages are looked up only for clients who may have reached it by the number and
-- times alone; those that ended undelivered do not count.
$capped::boolean AND cardinality(s.mailing_ids) >= $cap::int AND CASE WHEN (SELECT count(*) FROM {recent}) >= $cap
  THEN (SELECT count(*) FROM {recent}) - (
    SELECT count(*) FROM messages t
    WHERE t.bucket = s.bucket AND t.client_id = s.client_id AND t.mailing_id = ANY (ARRAY(SELECT id FROM {recent}))
      AND t.status IN ({Status.FAILED}, {Status.EXPIRED}, {Status.CANCELLED}, {Status.SKIPPED})
  ) - (
    SELECT count(*) FROM blocks k
    WHERE k.bucket = s.bucket AND k.mailing_id = ANY (ARRAY(SELECT id FROM {recent}))
      AND k.lowest <= s.client_id AND k.highest >= s.client_id AND s.client_id = ANY (k.client_ids)
  ) >= $cap ELSE false END

-- name: preview_groups
-- The number of clients who could get it, by receive window and by the reason why they are skipped or
-- NONE. Clients at the cap are counted from what was sent, which mostly reads less than all clients,
-- and subtracted from the others. When messages may leave is computed once for all who share a zone and window.
SELECT a.*, n.opens_at, n.late_at, n.late
FROM (
SELECT timezone, window_start, window_length, reason, sum(n)::bigint AS n
FROM (
  SELECT c.timezone, {window},
    CASE WHEN c.opted_out THEN {Reason.OPTED_OUT} ELSE {Reason.NONE} END AS reason, count(*) AS n
  FROM clients c
  {could_get_it}
  GROUP BY 1, 2, 3, 4
  UNION ALL
  SELECT k.timezone, k.window_start, k.window_length, v.reason, v.n
  FROM (
    SELECT c.timezone, {window}, count(*) AS n
    FROM client_sends s
    JOIN clients c ON c.bucket = s.bucket AND c.id = s.client_id
    {could_get_it}
      AND NOT c.opted_out AND {capped}
    GROUP BY 1, 2, 3
  ) k
  CROSS JOIN LATERAL (VALUES ({Reason.FREQUENCY_CAP}, k.n), ({Reason.NONE}, -k.n)) v (reason, n)
) g
GROUP BY 1, 2, 3, 4
HAVING sum(n) > 0
) a
CROSS JOIN LATERAL (
  SELECT o.opens_at, NULL::timestamptz AS late_at,
    CASE WHEN o.opens_at < coalesce($end::timestamptz, 'infinity') THEN {Reason.NONE} ELSE {Reason.WINDOW_NOT_BEFORE_END} END AS late
  FROM (SELECT window_opens_at(a.timezone, a.window_start, a.window_length, $start::timestamptz) AS opens_at) o
  WHERE NOT $timed::boolean
  UNION ALL
  SELECT d.opens_at, d.late_at, d.reason
  FROM next_departure_v1(a.timezone, a.window_start, a.window_length, $hours::jsonb, $holidays::date[],
    $local_start::timestamp, $skip_after::interval, coalesce($end, 'infinity'), $due_since::timestamptz,
    $start) d
  WHERE $timed
) n;

-- name: preview_texts
-- What the texts of all are made of who could get it and have not opted out.
SELECT c.timezone, {window}, c.phone, c.operator_code, c.tag, c.attributes,
  coalesce({capped}, false) AS capped
FROM clients c
LEFT JOIN client_sends s ON s.bucket = c.bucket AND s.client_id = c.id
{could_get_it}
  AND NOT c.opted_out;

-- name: preview_in_order
-- For the rest of the transaction, ordered rows are read in their order: without statistics the
-- planner takes it for cheaper to read and sort all clients.
SELECT set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true),
  set_config('enable_seqscan', 'off', true);

-- name: preview_samples
-- The first candidates by id who are not skipped, each with the earliest time of sending, which their group has: the
-- first ones of each bucket, and of these again the first.
SELECT s.*
FROM buckets b
CROSS JOIN LATERAL (
  SELECT c.*, d.due_at
  FROM clients c
  LEFT JOIN client_sends s ON s.bucket = c.bucket AND s.client_id = c.id
  CROSS JOIN LATERAL (
    SELECT g.opens_at AS due_at
    FROM (SELECT {window}) w
    JOIN unnest($timezones_of::text[], $starts_of::time[], $lengths_of::interval[], $opens_of::timestamptz[])
      AS g(timezone, window_start, window_length, opens_at)
      ON g.timezone = c.timezone AND g.window_start IS NOT DISTINCT FROM w.window_start
        AND g.window_length IS NOT DISTINCT FROM w.window_length
    LIMIT 1
  ) d
  {could_get_it}
    AND c.bucket = b.bucket AND NOT c.opted_out
    AND NOT coalesce({capped}, false)
  ORDER BY c.id
  LIMIT $limit
) s
ORDER BY s.id
LIMIT $limit;

-- name: preview_windows
-- When messages of several groups may leave between two moments: from the first opening of each group on, and until it is
-- too late for it.
SELECT g.who, lower(o) AS opens_at, upper(o) AS closes_at
FROM unnest($timezones::text[], $starts::time[], $lengths::interval[], $opens::timestamptz[], $lates::timestamptz[])
  WITH ORDINALITY AS g(timezone, window_start, window_length, opens_at, late_at, who)
CROSS JOIN LATERAL (
  SELECT greatest($since::timestamptz, g.opens_at) AS since, least($until::timestamptz, g.late_at) AS until
) s
CROSS JOIN LATERAL unnest(
  openings_v1(g.timezone, g.window_start, g.window_length, $hours::jsonb, $holidays::date[], s.since, s.until)
) AS o
WHERE s.since < s.until
ORDER BY g.who, opens_at;
