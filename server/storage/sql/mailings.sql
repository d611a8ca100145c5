-- Mailings with their progress, which is summed from mailing_counts: at most some 13 rows per bucket.
-- Messages are never counted.

-- fragment: start
-- When the planner looks at it first: at its start, or when the first zone of the world reaches its local start.
coalesce($start_time::timestamptz, ($local_start::timestamp AT TIME ZONE 'UTC') - interval '14 hours', now())

-- name: next_mailing_id
SELECT nextval('mailing_id');

-- name: insert_mailing
-- The database's clock decides whether the start has come. Returns no row when the end has passed.
INSERT INTO mailings (
  id, title, text, filter, starts_at, ends_at, state, audience_mode, semantics, priority, max_rate, max_per_day,
  max_per_day_timezone, endpoint, max_attempts, initial_backoff, max_backoff, labels, important, audience,
  sending_hours, holidays, local_start, skip_after
)
SELECT $mailing_id, $title, $text, $filter, {start}, $end_time::timestamptz,
  CASE WHEN $local_start::timestamp IS NULL AND coalesce($start_time::timestamptz, now()) <= now()
    THEN {MailingState.RUNNING} ELSE {MailingState.SCHEDULED} END,
  $audience_mode, $semantics, $priority, $max_rate, $max_per_day, $max_per_day_timezone, $endpoint,
  $max_attempts, $initial_backoff, $max_backoff, $labels, $important, $audience,
  $sending_hours, $holidays, $local_start, $skip_after
WHERE $end_time::timestamptz IS NULL OR $end_time::timestamptz > now()
RETURNING state;

-- name: begin_expansion
-- For a mailing that runs at once; a scheduled one gets its expansion when it starts.
INSERT INTO expansions (bucket, mailing_id, change_seq) SELECT bucket, $mailing_id, seq FROM client_change_seqs;

-- name: get_mailings
-- OFFSET 0 keeps the planner from merging the subqueries: they read bucket by bucket, by the key,
-- whatever it estimates.
SELECT g.*,
  coalesce(t.sent, 0) AS receipts_sent, coalesce(t.received, 0) AS receipts_received,
  coalesce(t.undelivered, 0) AS receipts_undelivered, coalesce(t.read, 0) AS receipts_read,
  coalesce(p.total, 0) AS total, coalesce(p.pending, 0) AS pending, coalesce(p.delivered, 0) AS delivered,
  coalesce(p.failed, 0) AS failed, coalesce(p.expired, 0) AS expired, coalesce(p.cancelled, 0) AS cancelled,
  coalesce(p.skipped, 0) AS skipped, coalesce(p.unknown, 0) AS unknown, coalesce(p.attempts, 0) AS attempts,
  p.first_delivered_at, p.last_delivered_at, coalesce(p.rate, 0) AS rate, coalesce(x.expanded, false) AS expanded,
  now() AS read_at
FROM mailings g
LEFT JOIN (
  SELECT k.mailing_id,
    sum(n) FILTER (WHERE receipt = {Receipt.SENT})::bigint AS sent,
    sum(n) FILTER (WHERE receipt = {Receipt.RECEIVED})::bigint AS received,
    sum(n) FILTER (WHERE receipt = {Receipt.UNDELIVERED})::bigint AS undelivered,
    sum(n) FILTER (WHERE receipt = {Receipt.READ})::bigint AS read
  FROM buckets b
  CROSS JOIN LATERAL (
    SELECT mailing_id, receipt, n FROM receipt_counts WHERE bucket = b.bucket AND mailing_id = ANY ($ids::bigint[]) OFFSET 0
  ) k
  GROUP BY k.mailing_id
) t ON t.mailing_id = g.id
LEFT JOIN (
  SELECT k.mailing_id,
    sum(n)::bigint AS total,
    sum(n) FILTER (WHERE status = {Status.PENDING})::bigint AS pending,
    sum(n) FILTER (WHERE status = {Status.DELIVERED})::bigint AS delivered,
    sum(n) FILTER (WHERE status = {Status.FAILED})::bigint AS failed,
    sum(n) FILTER (WHERE status = {Status.EXPIRED})::bigint AS expired,
    sum(n) FILTER (WHERE status = {Status.CANCELLED})::bigint AS cancelled,
    sum(n) FILTER (WHERE status = {Status.SKIPPED})::bigint AS skipped,
    sum(n) FILTER (WHERE status = {Status.UNKNOWN})::bigint AS unknown,
    sum(k.attempts)::bigint AS attempts,
    min(first_at) FILTER (WHERE status = {Status.DELIVERED} AND n > 0) AS first_delivered_at,
    max(last_at) FILTER (WHERE status = {Status.DELIVERED} AND n > 0) AS last_delivered_at,
    -- Over the last five seconds: the present slot and the part of the one before it that lies within
    -- them; for a mailing that began later, over the time since.
    (sum(
      CASE rate_slot(now()) - slot
        WHEN 0 THEN slot_n + before_n * (1 - rate_slot_share(now()))
        WHEN 1 THEN slot_n * (1 - rate_slot_share(now()))
        ELSE 0
      END
    ) FILTER (WHERE status = {Status.DELIVERED})
      / greatest(0.2, least(5, extract(
        epoch FROM now() - min(first_at) FILTER (WHERE status = {Status.DELIVERED})
      ))))::float8 AS rate
  FROM buckets b
  CROSS JOIN LATERAL (SELECT * FROM mailing_counts WHERE bucket = b.bucket AND mailing_id = ANY ($ids::bigint[]) OFFSET 0) k
  GROUP BY k.mailing_id
) p ON p.mailing_id = g.id
LEFT JOIN (
  SELECT e.mailing_id, bool_and(e.finished) AS expanded
  FROM buckets b
  CROSS JOIN LATERAL (
    SELECT mailing_id, finished FROM expansions WHERE bucket = b.bucket AND mailing_id = ANY ($ids::bigint[]) OFFSET 0
  ) e
  GROUP BY e.mailing_id
) x ON x.mailing_id = g.id
WHERE g.id = ANY ($ids::bigint[])
ORDER BY g.id DESC;

-- name: moment
-- Twice the same only if nothing was written in between by anybody, in any table: a commit moves the server's snapshot,
-- and another server was started at another time. NULL on a cluster, whose nodes commit by themselves.
SELECT CASE WHEN to_regclass('pg_catalog.pg_dist_node') IS NULL
  THEN concat(pg_current_snapshot(), ' ', pg_postmaster_start_time()) END;

-- name: list_mailing_ids
SELECT id
FROM mailings
WHERE id < $before AND ($states::smallint[] IS NULL OR state = ANY ($states))
  AND ($labels::jsonb IS NULL OR labels @> $labels)
  AND ($schedule_id::bigint = 0 OR schedule_id = $schedule_id)
  AND ($text = '' OR strpos(lower(title), lower($text)) > 0 OR strpos(lower(text), lower($text)) > 0)
ORDER BY id DESC
LIMIT $limit;

-- name: lock_mailing
SELECT *, now() AS read_at FROM mailings WHERE id = $mailing_id FOR UPDATE;

-- name: has_begun
-- Whether a mailing ran before, in which case it has expansions.
SELECT EXISTS (SELECT 1 FROM buckets b JOIN expansions e ON e.bucket = b.bucket AND e.mailing_id = $mailing_id);

-- name: update_mailing
-- A running mailing whose start is moved into the future, by the database's clock, is SCHEDULED again.
-- With another filter, rechecks begin once the new audience is expanded.
UPDATE mailings
SET title = $title, text = $text, filter = $filter, starts_at = moment.starts_at,
  ends_at = $end_time, audience_mode = $audience_mode, semantics = $semantics, priority = $priority,
  max_rate = $max_rate, max_per_day = $max_per_day, max_per_day_timezone = $max_per_day_timezone,
  endpoint = $endpoint, max_attempts = $max_attempts, initial_backoff = $initial_backoff,
  max_backoff = $max_backoff, labels = $labels, important = $important, audience = $audience,
  sending_hours = $sending_hours, holidays = $holidays, local_start = $local_start, skip_after = $skip_after,
  version = version + 1, updated_at = now(),
  state = CASE WHEN state = {MailingState.RUNNING} AND moment.starts_at > moment.at THEN {MailingState.SCHEDULED}
    ELSE state END,
  recheck_at = CASE WHEN filter = $filter THEN recheck_at ELSE 'infinity' END
FROM (SELECT now() AS at, {start} AS starts_at) moment
WHERE id = $mailing_id;

-- name: wait_for_expansion
-- Waits for steps in progress, which take clients in by the old timetable.
UPDATE expansions SET finished = finished WHERE mailing_id = $mailing_id;

-- name: judge_anew
-- Lets all that waits for a later moment be judged by the mailing's new timetable: the next claim puts it off again.
-- What a claim before put off by the old one, and settles after this, `expedite` finds a minute later.
UPDATE batches SET due_at = now(), opened_at = now() WHERE mailing_id = $mailing_id AND due_at > now();

-- name: note_judged
UPDATE mailings SET judged_at = now() WHERE id = $mailing_id;

-- name: calendar_names
SELECT name FROM calendars ORDER BY name;

-- fragment: moved
version = version + 1, updated_at = now()

-- fragment: movable
id = $mailing_id AND state = ANY ($sources::smallint[])

-- name: pause_mailing
UPDATE mailings SET state = {MailingState.PAUSED}, {moved} WHERE {movable};

-- name: resume_mailing
-- One that has not begun, or whose start is ahead, is scheduled; it starts at once when its time has come.
WITH begun AS MATERIALIZED (
  SELECT count(*) > 0 AS once, now() AS at
  FROM buckets b JOIN expansions e ON e.bucket = b.bucket AND e.mailing_id = $mailing_id
)
UPDATE mailings SET state = CASE WHEN starts_at <= begun.at AND begun.once THEN {MailingState.RUNNING}
    ELSE {MailingState.SCHEDULED} END, {moved}
FROM begun
WHERE {movable};

-- name: cancel_mailing
UPDATE mailings SET state = {MailingState.CANCELLED}, {moved} WHERE {movable};

-- name: find_state
SELECT state FROM mailings WHERE id = $mailing_id;

-- name: mailing_versions
-- What differs when a mailing was changed since it was read; a start by the clock leaves the version
-- as it is and changes updated_at.
SELECT id, version, updated_at FROM mailings WHERE id = ANY ($ids::bigint[]);
