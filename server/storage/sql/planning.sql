-- The life of mailings: they start, take in clients, are rechecked for new ones, and end.

-- fragment: recheck_due
-- One further ahead than it can be was stored by a clock that was set back since.
(recheck_at <= now() OR (recheck_at > now() + recheck_interval + interval '1 s' AND recheck_at < 'infinity'))

-- name: poll
-- What there is to do, and when the next thing is due: the only query of an idle dispatcher.
-- ORDER BY and LIMIT keep to the index on due_at, whatever the planner estimates for its range.
WITH due AS MATERIALIZED (
  SELECT b.mailing_id, b.lease_until
  FROM batches b CROSS JOIN LATERAL (
    SELECT 1 FROM mailings
    WHERE id = b.mailing_id AND (state IN ({MailingState.RUNNING}, {MailingState.CANCELLED}) OR ends_at <= now())
    LIMIT 1
  ) m
  WHERE b.due_at <= now() ORDER BY b.due_at LIMIT 10000
)
SELECT
  EXISTS (SELECT 1 FROM mailings WHERE state = {MailingState.SCHEDULED} AND starts_at <= now()) AS starts,
  EXISTS (
    SELECT 1 FROM expansions e JOIN mailings m ON m.id = e.mailing_id AND m.state = {MailingState.RUNNING}
    WHERE NOT e.finished
  ) AS expands,
  EXISTS (SELECT 1 FROM mailings WHERE state = {MailingState.RUNNING} AND {recheck_due}) AS rechecks,
  EXISTS (SELECT 1 FROM mailings WHERE state = {MailingState.RUNNING} AND ends_at <= now())
    OR EXISTS (SELECT 1 FROM mailings WHERE state = {MailingState.PAUSED} AND ends_at <= now()) AS ends,
  EXISTS (SELECT 1 FROM mailings WHERE state = {MailingState.RUNNING}) AS running,
  EXISTS (SELECT 1 FROM due WHERE lease_until <= now()) AS claims,
  extract(epoch FROM least(
    (SELECT min(due_at) FROM batches WHERE due_at > now()),
    (SELECT min(lease_until) FROM due WHERE lease_until > now()),
    (SELECT min(starts_at) FROM mailings WHERE state = {MailingState.SCHEDULED}),
    (SELECT min(ends_at) FROM mailings WHERE state = {MailingState.RUNNING} AND ends_at > now()),
    (SELECT min(ends_at) FROM mailings WHERE state = {MailingState.PAUSED} AND ends_at > now()),
    (
      SELECT min(recheck_at) FROM mailings
      WHERE state = {MailingState.RUNNING} AND recheck_at > now() AND recheck_at < 'infinity'
    )
  ) - clock_timestamp())::float8 AS next_in;

-- name: local_starts
-- Scheduled mailings with a local start that some zone of the world has reached.
SELECT id, version, coalesce(audience, filter) AS filter, local_start FROM mailings
WHERE state = {MailingState.SCHEDULED} AND starts_at <= now() AND local_start IS NOT NULL;

-- name: first_zone
-- When the first zone with a client who matches reaches a local time. Reads all clients. NULL for no such client.
SELECT min(reached_at(z.timezone, $local_start::timestamp)) AS begins_at
FROM (
  SELECT DISTINCT c.timezone FROM clients c
  WHERE NOT c.opted_out
    AND ($tags::text[] IS NULL OR c.tag = ANY ($tags))
    AND ($operator_codes::text[] IS NULL OR c.operator_code = ANY ($operator_codes))
    AND ($timezones::text[] IS NULL OR c.timezone = ANY ($timezones))
    AND ($attributes::jsonb IS NULL OR c.attributes @> $attributes)
    AND ($chosen_ids::bigint[] IS NULL OR c.id = ANY ($chosen_ids))
    /* further conditions */
) z;

-- name: set_begin
-- Sets when a mailing begins, and when it is looked at again: then, or earlier, as clients of an earlier zone may be
-- added, or at its end. One without clients begins when the last zone of the world has reached its local start.
WITH begin AS MATERIALIZED (
  SELECT t.at, least(t.at, now() + $look_again::interval, m.ends_at - interval '1 microsecond') AS next_at
  FROM mailings m CROSS JOIN (SELECT coalesce($begins_at::timestamptz,
    CASE WHEN $local_start::timestamp AT TIME ZONE 'UTC' + interval '12 hours' <= now() THEN now() END) AS at) t
  WHERE m.id = $id
)
UPDATE mailings SET begins_at = b.at, starts_at = b.next_at FROM begin b
WHERE id = $id AND version = $version AND state = {MailingState.SCHEDULED};

-- name: start_due
-- Starts the mailings that are due; rechecks begin once they are expanded. One whose end passed while it was paused
-- before its start, or before any zone reached its local start, begins as well: every client of it is to have a message,
-- which ends EXPIRED.
WITH unbegun AS MATERIALIZED (
  SELECT m.id FROM mailings m
  WHERE m.state = {MailingState.PAUSED} AND m.ends_at <= now() AND m.id NOT IN (
    SELECT e.mailing_id
    FROM mailings p CROSS JOIN buckets k JOIN expansions e ON e.bucket = k.bucket AND e.mailing_id = p.id
    WHERE p.state = {MailingState.PAUSED} AND p.ends_at <= now()
  )
)
UPDATE mailings m SET state = {MailingState.RUNNING}, recheck_at = 'infinity', updated_at = now()
WHERE (m.state = {MailingState.SCHEDULED} AND m.starts_at <= now() AND (m.local_start IS NULL OR m.begins_at <= now() OR m.ends_at <= now()))
  OR (m.id IN (SELECT id FROM unbegun) AND m.state = {MailingState.PAUSED})
RETURNING m.id;

-- name: open_expansions
-- Sets where the expansion of a started mailing begins, before any client is read: later changes of
-- clients are found through client_changes. A mailing that ran before keeps its positions.
INSERT INTO expansions (bucket, mailing_id, change_seq)
SELECT s.bucket, i.id, s.seq FROM client_change_seqs s CROSS JOIN unnest($ids::bigint[]) AS i(id)
ON CONFLICT DO NOTHING;

-- name: expand_anew
-- Begins another pass over all clients for open mailings, which takes in matching clients without a
-- message. Needed when the filter changes, and when a mailing runs again after a time in which
-- changes of clients were not kept for it. The new position is one that no step in progress knows,
-- so that none continues with the old filter.
UPDATE expansions e SET last_client_id = -m.version, finished = false, change_seq = s.seq
FROM mailings m, client_change_seqs s
WHERE m.id = ANY($ids::bigint[]) AND m.audience_mode = {AudienceMode.OPEN}
  AND e.mailing_id = m.id AND e.bucket = s.bucket;

-- name: expandable
-- The mailings that still have clients to take in, with the number of their due batches: expansion
-- stays only a little ahead of sending. Those with $most due batches come last: they wait, and must
-- not keep mailings of a lower priority out of the list.
WITH unfinished AS MATERIALIZED (
  SELECT mailing_id, array_agg(bucket) AS buckets, array_agg(last_client_id) AS positions
  FROM expansions WHERE NOT finished GROUP BY mailing_id
), due AS (
  SELECT t.mailing_id, count(*) AS batches
  FROM buckets b JOIN batches t ON t.bucket = b.bucket AND t.mailing_id IN (SELECT mailing_id FROM unfinished)
  WHERE t.due_at <= now()
  GROUP BY t.mailing_id
)
SELECT m.id, m.version, coalesce(m.audience, m.filter) AS filter, m.semantics, m.max_rate, e.buckets, e.positions,
  coalesce(o.batches, 0) AS open_batches, coalesce(m.ends_at <= now(), false) AS over
FROM unfinished e
JOIN mailings m ON m.id = e.mailing_id
LEFT JOIN due o ON o.mailing_id = m.id
WHERE m.state = {MailingState.RUNNING} OR (m.state = {MailingState.PAUSED} AND m.ends_at <= now())
ORDER BY coalesce(o.batches, 0) >= $most::int, m.priority DESC, coalesce(o.batches, 0), m.id
LIMIT 50;

-- fragment: step
p_bucket => $bucket::int, p_mailing_id => $mailing_id, p_batch_size => $batch_size, p_version => $version,
  p_limit => $limit, p_position => $position, p_tags => $tags, p_operator_codes => $operator_codes,
  p_timezones => $timezones, p_attributes => $attributes, p_chosen_ids => $chosen_ids, p_condition => $condition,
  p_literals => $literals

-- name: expand
-- Takes in the next clients of a bucket, in the order of their ids.
SELECT * FROM expand_v2({step});

-- name: has_sample
SELECT EXISTS (
  SELECT 1 FROM mailing_samples WHERE bucket = $bucket AND mailing_id = $mailing_id AND filter_hash = $hash_
);

-- name: draw_sample
-- Draws the sample of a mailing among all who match now, once. Reads all clients.
INSERT INTO mailing_samples (bucket, mailing_id, filter_hash, client_ids)
SELECT b.bucket, $mailing_id::bigint, $hash_::bigint, coalesce(s.client_ids, '{}')
FROM buckets b
LEFT JOIN (
  SELECT d.bucket, array_agg(d.id ORDER BY d.id) AS client_ids
  FROM (
    SELECT c.bucket, c.id
    FROM clients c
    WHERE ($tags::text[] IS NULL OR c.tag = ANY ($tags))
      AND ($operator_codes::text[] IS NULL OR c.operator_code = ANY ($operator_codes))
      AND ($timezones::text[] IS NULL OR c.timezone = ANY ($timezones))
      AND ($attributes::jsonb IS NULL OR c.attributes @> $attributes)
      AND ($chosen_ids::bigint[] IS NULL OR c.id = ANY ($chosen_ids))
      /* further conditions */
    ORDER BY hashint8extended(c.id, $seed), c.id
    LIMIT $size::bigint
  ) d
  GROUP BY d.bucket
) s ON s.bucket = b.bucket
ON CONFLICT DO NOTHING;

-- name: rechecks_due
-- Running open mailings whose recheck is due, with the buckets in which clients changed since the
-- last one.
SELECT m.id, m.version, m.filter, m.semantics, m.max_rate,
  coalesce(array_agg(e.bucket) FILTER (WHERE s.seq > e.change_seq), '{}') AS buckets,
  coalesce(array_agg(e.change_seq) FILTER (WHERE s.seq > e.change_seq), '{}') AS positions
FROM (
  SELECT id, version, coalesce(audience, filter) AS filter, semantics, max_rate FROM mailings
  WHERE state = {MailingState.RUNNING} AND {recheck_due} ORDER BY recheck_at LIMIT 200
) m
CROSS JOIN client_change_seqs s
JOIN expansions e ON e.bucket = s.bucket AND e.mailing_id = m.id
GROUP BY m.id, m.version, m.filter, m.semantics, m.max_rate;

-- name: expand_changes
-- Takes in the clients that were changed since the last recheck and now match.
SELECT * FROM expand_changes_v2({step});

-- name: rechecked
-- Sets when a mailing is rechecked next: soon if clients were found, else after twice the last
-- interval.
UPDATE mailings m
SET recheck_interval = i.next, recheck_at = i.at
FROM (
  SELECT id, next, now() + next AS at
  FROM (
    SELECT id, CASE WHEN id = ANY($found::bigint[]) THEN $shortest::interval
      ELSE greatest($shortest::interval, least(recheck_interval * 2, $longest::interval)) END AS next
    FROM mailings WHERE id = ANY($ids::bigint[])
  ) n
) i
WHERE m.id = i.id AND m.state = {MailingState.RUNNING};

-- name: expanded
-- Begins the rechecks of open mailings that are completely expanded.
WITH whole AS MATERIALIZED (
  SELECT m.id
  FROM mailings m CROSS JOIN buckets k JOIN expansions e ON e.bucket = k.bucket AND e.mailing_id = m.id
  WHERE m.state = {MailingState.RUNNING} AND m.audience_mode = {AudienceMode.OPEN} AND m.recheck_at = 'infinity'
  GROUP BY m.id
  HAVING bool_and(e.finished)
)
UPDATE mailings m SET recheck_interval = $recheck_min::interval, recheck_at = now() + $recheck_min::interval
WHERE m.state = {MailingState.RUNNING} AND m.recheck_at = 'infinity' AND m.id IN (SELECT id FROM whole);

-- name: expedite
-- Makes batches due at once whose mailing is over or ends before they are due, so that they are
-- claimed and settled without being sent. So are those that a clock opened which was set back since:
-- what was due at once, and retries, and what was put off by a timetable about when another one replaced it. Others wait
-- for a window, which the clock decides.
UPDATE batches b SET due_at = now(), opened_at = now()
FROM mailings m
WHERE b.due_at > now() AND m.id = b.mailing_id
  AND (
    m.state = {MailingState.CANCELLED} OR (m.state = {MailingState.RUNNING} AND m.ends_at <= b.due_at)
    OR m.ends_at <= now()
    OR (m.judged_at <= now() - interval '1 minute' AND b.opened_at - m.judged_at < interval '1 minute')
    OR (b.opened_at > now() + interval '1 s' AND b.due_at - b.opened_at <= m.max_backoff)
  );

-- name: shorten_leases
-- Lets leases end that a clock gave which was set back since: after their length, from now on. Their
-- holders count down on clocks of their own, so no lease is cut short.
WITH ahead AS MATERIALIZED (
  SELECT bucket, mailing_id, no, leased_at, now() + (lease_until - leased_at) AS lease_until
  FROM batches
  WHERE due_at <= now() AND leased_at > now() + interval '1 s' AND lease_until > now()
)
UPDATE batches b SET lease_until = s.lease_until, leased_at = now()
FROM ahead s
WHERE b.bucket = s.bucket AND b.mailing_id = s.mailing_id AND b.no = s.no AND b.leased_at = s.leased_at;

-- fragment: done
-- Mailings past their end or with a fixed audience that began and have nothing left to take in or to settle.
SELECT p.id
FROM (
  SELECT m.id, e.finished, EXISTS (SELECT 1 FROM batches b WHERE b.bucket = k.bucket AND b.mailing_id = m.id) AS open
  FROM mailings m
  CROSS JOIN buckets k
  LEFT JOIN expansions e ON e.bucket = k.bucket AND e.mailing_id = m.id
  WHERE m.state IN ({MailingState.RUNNING}, {MailingState.PAUSED}) AND ($ids::bigint[] IS NULL OR m.id = ANY ($ids))
    AND (m.ends_at <= now() OR m.audience_mode = {AudienceMode.SNAPSHOT})
) p
GROUP BY p.id
HAVING count(p.finished) > 0 AND bool_and(coalesce(p.finished, true)) AND NOT bool_or(p.open)

-- name: lock_done
-- Locks the mailings that seem to have nothing left to do. Retries hold the same lock while they put
-- messages back, so `complete`, whose snapshot is later, sees those; a single statement would not.
WITH finished AS MATERIALIZED (
  {done}
)
SELECT m.id FROM mailings m WHERE m.id IN (SELECT id FROM finished) ORDER BY m.id FOR UPDATE;

-- name: complete
-- Ends the mailings that have nothing left to do.
WITH finished AS MATERIALIZED (
  {done}
)
UPDATE mailings m SET state = {MailingState.COMPLETED}, updated_at = now(), recheck_at = 'infinity'
WHERE m.state IN ({MailingState.RUNNING}, {MailingState.PAUSED}) AND m.id IN (SELECT id FROM finished)
RETURNING m.id;

-- name: forget_changes
-- Removes changes of clients that every live mailing has read, a minute after they were made: those
-- who hold batches look for them.
DELETE FROM client_changes c
USING (
  SELECT s.bucket, coalesce(min(e.change_seq), s.seq) AS seq
  FROM client_change_seqs s
  LEFT JOIN (
    expansions e JOIN mailings m ON m.id = e.mailing_id AND m.state IN ({MailingState.RUNNING}, {MailingState.PAUSED})
  ) ON e.bucket = s.bucket
  GROUP BY s.bucket
) read
WHERE c.bucket = read.bucket AND c.seq <= read.seq AND c.at < now() - interval '1 minute';
