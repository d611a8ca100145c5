-- The life of mailings: they start, take in clients, are rechecked for new ones, and end.

-- fragment: recheck_due
-- One further ahead than it can be was stored by a clock that was set back since.
(recheck_at <= now() OR (recheck_at > now() + recheck_interval + interval '1 s' AND recheck_at < 'infinity'))

-- fragment: ended_unbegun
-- A mailing `m` that was paused before its start, until its end.
m.state = {MailingState.PAUSED} AND m.ends_at <= now()
  AND NOT EXISTS (SELECT FROM buckets k JOIN expansions e ON e.bucket = k.bucket AND e.mailing_id = m.id)

-- name: poll
-- What there is to do, and when the next thing is due: the only query of an idle dispatcher.
-- ORDER BY and LIMIT keep to the index on due_at, whatever the planner estimates for its range.
WITH due AS MATERIALIZED (
  SELECT b.mailing_id, b.lease_until
  FROM batches b CROSS JOIN LATERAL (
    SELECT FROM mailings
    WHERE id = b.mailing_id AND (state IN ({MailingState.RUNNING}, {MailingState.CANCELLED}) OR ends_at <= now())
    LIMIT 1
  ) m
  WHERE b.due_at <= now() ORDER BY b.due_at LIMIT 10000
)
SELECT
  EXISTS (SELECT FROM mailings WHERE state = {MailingState.SCHEDULED} AND starts_at <= now())
    OR EXISTS (SELECT FROM mailings m WHERE {ended_unbegun}) AS starts,
  EXISTS (
    SELECT FROM expansions e JOIN mailings m ON m.id = e.mailing_id AND m.state = {MailingState.RUNNING}
    WHERE NOT e.finished
  ) AS expands,
  EXISTS (SELECT FROM mailings WHERE state = {MailingState.RUNNING} AND {recheck_due}) AS rechecks,
  EXISTS (SELECT FROM mailings WHERE state = {MailingState.RUNNING} AND ends_at <= now())
    OR EXISTS (SELECT FROM mailings WHERE state = {MailingState.PAUSED} AND ends_at <= now()) AS ends,
  EXISTS (SELECT FROM mailings WHERE state = {MailingState.RUNNING}) AS running,
  EXISTS (SELECT FROM due WHERE lease_until <= now()) AS claims,
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

-- name: start_due
-- Starts the mailings that are due; rechecks begin once they are expanded. One whose end passed while it was paused
-- before its start begins as well: every client of it is to have a message, which ends EXPIRED.
UPDATE mailings m SET state = {MailingState.RUNNING}, recheck_at = 'infinity', updated_at = now()
WHERE (m.state = {MailingState.SCHEDULED} AND m.starts_at <= now()) OR ({ended_unbegun})
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
SELECT m.id, m.version, m.filter, m.semantics, m.max_rate, e.buckets, e.positions,
  o.batches AS open_batches, coalesce(m.ends_at <= now(), false) AS over
FROM (
  SELECT mailing_id, array_agg(bucket) AS buckets, array_agg(last_client_id) AS positions
  FROM expansions WHERE NOT finished GROUP BY mailing_id
) e
JOIN mailings m ON m.id = e.mailing_id
CROSS JOIN LATERAL (
  SELECT count(*) AS batches FROM buckets b JOIN batches t ON t.bucket = b.bucket AND t.mailing_id = m.id
  WHERE t.due_at <= now()
) o
WHERE m.state = {MailingState.RUNNING} OR (m.state = {MailingState.PAUSED} AND m.ends_at <= now())
ORDER BY o.batches >= $most::int, m.priority DESC, o.batches, m.id
LIMIT 50;

-- fragment: matches
-- The filter of a mailing, except for its ids; NULL matches everybody.
($tags::text[] IS NULL OR tag = ANY($tags))
    AND ($operator_codes::text[] IS NULL OR operator_code = ANY($operator_codes))
    AND ($timezones::text[] IS NULL OR timezone = ANY($timezones))
    AND ($attributes::jsonb IS NULL OR attributes @> $attributes)

-- fragment: reachable
-- Neither opted out nor added again after the phone got the mailing.
NOT opted_out AND (received IS NULL OR $mailing_id <> ALL (received))

-- fragment: take_in
-- Gives each client of `audience` a message, puts the pending ones into batches that are due
-- together, and ends at once those whose window does not open before the mailing's end.
inserted AS (
  INSERT INTO messages (bucket, mailing_id, client_id, due_at, status, reason, settled_at)
  SELECT $bucket, $mailing_id, a.id, a.due_at,
    CASE WHEN a.due_at < h.ends_at THEN {Status.PENDING} ELSE {Status.EXPIRED} END,
    CASE WHEN a.due_at < h.ends_at THEN {Reason.NONE} WHEN h.ends_at <= now() THEN {Reason.MAILING_ENDED}
      ELSE {Reason.WINDOW_NOT_BEFORE_END} END,
    CASE WHEN a.due_at < h.ends_at THEN NULL ELSE now() END
  FROM audience a CROSS JOIN held h
  -- Not ON CONFLICT: a speculative insertion writes a quarter more WAL, and nobody else inserts
  -- while `held` is locked. The LIMIT makes it a look-up per client; NOT EXISTS might read the
  -- whole mailing instead.
  LEFT JOIN LATERAL (
    SELECT true AS present FROM messages
    WHERE bucket = $bucket AND mailing_id = $mailing_id AND client_id = a.id LIMIT 1
  ) m ON true
  WHERE m.present IS NULL
  RETURNING client_id, due_at, status, reason
), numbered AS (
  SELECT client_id, due_at, (row_number() OVER (PARTITION BY due_at ORDER BY client_id) - 1) / $batch_size AS part
  FROM inserted WHERE status = {Status.PENDING}
), opened AS (
  INSERT INTO batches (bucket, mailing_id, no, client_ids, due_at, opened_at)
  SELECT $bucket, $mailing_id, nextval('batch_no'), client_ids, due_at, now()
  FROM (SELECT array_agg(client_id ORDER BY client_id) AS client_ids, due_at FROM numbered GROUP BY due_at, part) g
), tick AS (
  UPDATE buckets SET journal_seq = journal_seq + 1
  WHERE bucket = $bucket AND EXISTS (SELECT FROM inserted WHERE status <> {Status.PENDING})
  RETURNING journal_seq
), counted AS (
  -- Reads tick, so that the bucket is locked before the counters, as in settle.
  INSERT INTO mailing_counts AS k (bucket, mailing_id, status, reason, n)
  SELECT $bucket, $mailing_id, status, reason, n FROM (
    SELECT status, reason, count(*) AS n FROM inserted GROUP BY status, reason ORDER BY status, reason
  ) c WHERE (SELECT count(*) FROM tick) >= 0
  ON CONFLICT (bucket, mailing_id, status, reason) DO UPDATE SET n = k.n + excluded.n, last_at = excluded.last_at
), figured AS (
  -- Messages that ended at once took no attempt. Reads tick, too.
  INSERT INTO mailing_figures AS f (bucket, mailing_id, kind, key, n)
  SELECT $bucket, $mailing_id, {Figure.ATTEMPTS}, 0, count(*) FROM inserted
  WHERE status <> {Status.PENDING} AND (SELECT count(*) FROM tick) >= 0 HAVING count(*) > 0
  ON CONFLICT (bucket, mailing_id, kind, key) DO UPDATE SET n = f.n + excluded.n
), wrote AS (
  INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses)
  SELECT $bucket, (SELECT journal_seq FROM tick), $mailing_id, array_agg(client_id), ARRAY[{Status.EXPIRED}]
  FROM inserted WHERE status <> {Status.PENDING} HAVING count(*) > 0
)

-- name: expand
-- Takes in the next clients of a bucket, in the order of their ids. `held` is empty, and nothing
-- happens, when another replica holds or has moved the position or the mailing was changed. An
-- audience that is fixed at the start takes in no client that was added since.
WITH held AS (
  SELECT coalesce(m.ends_at, 'infinity') AS ends_at,
    CASE m.audience_mode WHEN {AudienceMode.SNAPSHOT} THEN e.started_at ELSE 'infinity' END AS added_until
  FROM expansions e JOIN mailings m ON m.id = e.mailing_id
  WHERE e.bucket = $bucket AND e.mailing_id = $mailing_id AND e.last_client_id = $position AND NOT e.finished
    AND m.version = $version AND m.state IN ({MailingState.RUNNING}, {MailingState.PAUSED})
  FOR UPDATE OF e SKIP LOCKED
), seen AS MATERIALIZED (
  SELECT c.* FROM held CROSS JOIN LATERAL (
    SELECT id, operator_code, tag, timezone, window_start, window_length, attributes, opted_out,
      created_at, received
    FROM clients
    WHERE bucket = $bucket AND id > $position AND ($chosen_ids::bigint[] IS NULL OR id = ANY($chosen_ids))
    ORDER BY id LIMIT $limit
  ) c
), audience AS MATERIALIZED (
  SELECT id, window_opens_at(timezone, window_start, window_length, now()) AS due_at
  FROM seen
  WHERE {reachable} AND created_at <= (SELECT added_until FROM held)
    AND {matches}
), {take_in}, moved AS (
  UPDATE expansions
  SET last_client_id = greatest(last_client_id, (SELECT max(id) FROM seen)),
      finished = (SELECT count(*) FROM seen) < $limit
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND EXISTS (SELECT FROM held)
  RETURNING last_client_id, finished
)
SELECT last_client_id AS position, finished,
  (SELECT count(*) FROM seen) AS seen, (SELECT count(*) FROM inserted) AS inserted
FROM moved;

-- name: rechecks_due
-- Running open mailings whose recheck is due, with the buckets in which clients changed since the
-- last one.
SELECT m.id, m.version, m.filter, m.semantics, m.max_rate,
  coalesce(array_agg(e.bucket) FILTER (WHERE s.seq > e.change_seq), '{}') AS buckets,
  coalesce(array_agg(e.change_seq) FILTER (WHERE s.seq > e.change_seq), '{}') AS positions
FROM (
  SELECT id, version, filter, semantics, max_rate FROM mailings
  WHERE state = {MailingState.RUNNING} AND {recheck_due} ORDER BY recheck_at LIMIT 200
) m
CROSS JOIN client_change_seqs s
JOIN expansions e ON e.bucket = s.bucket AND e.mailing_id = m.id
GROUP BY m.id, m.version, m.filter, m.semantics, m.max_rate;

-- name: expand_changes
-- Takes in the clients that were changed since the last recheck and now match.
WITH held AS (
  SELECT coalesce(m.ends_at, 'infinity') AS ends_at
  FROM expansions e JOIN mailings m ON m.id = e.mailing_id
  WHERE e.bucket = $bucket AND e.mailing_id = $mailing_id AND e.change_seq = $position AND e.finished
    AND m.version = $version AND m.state = {MailingState.RUNNING}
  FOR UPDATE OF e SKIP LOCKED
), fresh AS MATERIALIZED (
  SELECT f.* FROM held CROSS JOIN LATERAL (
    SELECT seq, client_ids FROM client_changes WHERE bucket = $bucket AND seq > $position ORDER BY seq LIMIT $limit
  ) f
), seen AS MATERIALIZED (
  -- LIMIT: one by one, by their key, however many the planner believes there are.
  SELECT c.id, operator_code, tag, timezone, window_start, window_length, attributes, opted_out, received
  FROM (SELECT DISTINCT unnest(client_ids) AS id FROM fresh) i
  CROSS JOIN LATERAL (SELECT * FROM clients WHERE bucket = $bucket AND id = i.id LIMIT 1) c
), audience AS MATERIALIZED (
  SELECT id, window_opens_at(timezone, window_start, window_length, now()) AS due_at
  FROM seen
  WHERE {reachable}
    AND {matches}
    AND ($chosen_ids::bigint[] IS NULL OR id = ANY($chosen_ids))
), {take_in}, moved AS (
  UPDATE expansions SET change_seq = (SELECT max(seq) FROM fresh)
  WHERE bucket = $bucket AND mailing_id = $mailing_id AND EXISTS (SELECT FROM fresh)
  RETURNING change_seq
)
SELECT change_seq AS position, (SELECT count(*) FROM fresh) < $limit AS finished,
  (SELECT count(*) FROM fresh) AS seen, (SELECT count(*) FROM inserted) AS inserted
FROM moved;

-- name: rechecked
-- Sets when a mailing is rechecked next: soon if clients were found, else after twice the last
-- interval.
UPDATE mailings m
SET recheck_interval = i.next, recheck_at = now() + i.next
FROM (
  SELECT id, CASE WHEN id = ANY($found::bigint[]) THEN $shortest::interval
    ELSE greatest($shortest::interval, least(recheck_interval * 2, $longest::interval)) END AS next
  FROM mailings WHERE id = ANY($ids::bigint[])
) i
WHERE m.id = i.id AND m.state = {MailingState.RUNNING};

-- name: expanded
-- Begins the rechecks of open mailings that are completely expanded.
UPDATE mailings m SET recheck_interval = $recheck_min::interval, recheck_at = now() + $recheck_min::interval
WHERE m.state = {MailingState.RUNNING} AND m.audience_mode = {AudienceMode.OPEN} AND m.recheck_at = 'infinity'
  AND EXISTS (SELECT FROM buckets b JOIN expansions e ON e.bucket = b.bucket AND e.mailing_id = m.id)
  AND NOT EXISTS (SELECT FROM expansions e WHERE e.mailing_id = m.id AND NOT e.finished);

-- name: expedite
-- Makes batches due at once whose mailing is over or ends before they are due, so that they are
-- claimed and settled without being sent. So are those that a clock opened which was set back since:
-- what was due at once, and retries. Others wait for a window, which the clock decides.
UPDATE batches b SET due_at = now(), opened_at = now()
FROM mailings m
WHERE b.due_at > now() AND m.id = b.mailing_id
  AND (
    m.state = {MailingState.CANCELLED} OR (m.state = {MailingState.RUNNING} AND m.ends_at <= b.due_at)
    OR m.ends_at <= now()
    OR (b.opened_at > now() + interval '1 s' AND b.due_at - b.opened_at <= m.max_backoff)
  );

-- name: shorten_leases
-- Lets leases end that a clock gave which was set back since: after their length, from now on. Their
-- holders count down on clocks of their own, so no lease is cut short.
UPDATE batches SET lease_until = now() + (lease_until - leased_at), leased_at = now()
WHERE due_at <= now() AND leased_at > now() + interval '1 s' AND lease_until > now();

-- fragment: done
-- A mailing past its end or with a fixed audience that began and has nothing left to take in or to settle.
m.state IN ({MailingState.RUNNING}, {MailingState.PAUSED}) AND ($ids::bigint[] IS NULL OR m.id = ANY($ids))
  AND (m.ends_at <= now() OR m.audience_mode = {AudienceMode.SNAPSHOT})
  AND NOT EXISTS (SELECT FROM expansions e WHERE e.mailing_id = m.id AND NOT e.finished)
  AND EXISTS (SELECT FROM buckets k JOIN expansions e ON e.bucket = k.bucket AND e.mailing_id = m.id)
  AND NOT EXISTS (SELECT FROM buckets k JOIN batches b ON b.bucket = k.bucket AND b.mailing_id = m.id)

-- name: lock_done
-- Locks the mailings that seem to have nothing left to do. Retries hold the same lock while they put
-- messages back, so `complete`, whose snapshot is later, sees those; a single statement would not.
SELECT m.id FROM mailings m WHERE {done} ORDER BY m.id FOR UPDATE;

-- name: complete
-- Ends the mailings that have nothing left to do.
UPDATE mailings m SET state = {MailingState.COMPLETED}, updated_at = now(), recheck_at = 'infinity'
WHERE {done}
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
