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
  id, title, text, filter, starts_at, ends_at, state, audience_mode, semantics, priority, max_rate, endpoint,
  max_attempts, initial_backoff, max_backoff, labels, important, audience, sending_hours, holidays, local_start,
  skip_after
)
SELECT $mailing_id, $title, $text, $filter, {start}, $end_time::timestamptz,
  CASE WHEN $local_start::timestamp IS NULL AND coalesce($start_time::timestamptz, now()) <= now()
    THEN {MailingState.RUNNING} ELSE {MailingState.SCHEDULED} END,
  $audience_mode, $semantics, $priority, $max_rate, $endpoint, $max_attempts, $initial_backoff, $max_backoff, $labels,
  $important, $audience, $sending_hours, $holidays, $local_start, $skip_after
WHERE $end_time::timestamptz IS NULL OR $end_time::timestamptz > now()
RETURNING state;

-- name: begin_expansion
-- For a mailing that runs at once; a scheduled one gets its expansion when it starts.
INSERT INTO expansions (bucket, mailing_id, change_seq) SELECT bucket, $mailing_id, seq FROM client_change_seqs;

-- name: get_mailings
-- OFFSET 0 keeps the planner from merging the subqueries: they read bucket by bucket, by the key,
-- whatever it estimates.
SELECT g.*, p.*, x.expanded, t.*, now() AS read_at
FROM mailings g
CROSS JOIN LATERAL (
  SELECT
    coalesce(sum(n) FILTER (WHERE receipt = {Receipt.SENT}), 0)::bigint AS receipts_sent,
    coalesce(sum(n) FILTER (WHERE receipt = {Receipt.RECEIVED}), 0)::bigint AS receipts_received,
    coalesce(sum(n) FILTER (WHERE receipt = {Receipt.UNDELIVERED}), 0)::bigint AS receipts_undelivered,
    coalesce(sum(n) FILTER (WHERE receipt = {Receipt.READ}), 0)::bigint AS receipts_read
  FROM buckets b
  CROSS JOIN LATERAL (SELECT * FROM receipt_counts WHERE bucket = b.bucket AND mailing_id = g.id OFFSET 0) k
) t
CROSS JOIN LATERAL (
  SELECT
    coalesce(sum(n), 0)::bigint AS total,
    coalesce(sum(n) FILTER (WHERE status = {Status.PENDING}), 0)::bigint AS pending,
    coalesce(sum(n) FILTER (WHERE status = {Status.DELIVERED}), 0)::bigint AS delivered,
    coalesce(sum(n) FILTER (WHERE status = {Status.FAILED}), 0)::bigint AS failed,
    coalesce(sum(n) FILTER (WHERE status = {Status.EXPIRED}), 0)::bigint AS expired,
    coalesce(sum(n) FILTER (WHERE status = {Status.CANCELLED}), 0)::bigint AS cancelled,
    coalesce(sum(n) FILTER (WHERE status = {Status.SKIPPED}), 0)::bigint AS skipped,
    coalesce(sum(n) FILTER (WHERE status = {Status.UNKNOWN}), 0)::bigint AS unknown,
    coalesce(sum(k.attempts), 0)::bigint AS attempts,
    min(first_at) FILTER (WHERE status = {Status.DELIVERED} AND n > 0) AS first_delivered_at,
    max(last_at) FILTER (WHERE status = {Status.DELIVERED} AND n > 0) AS last_delivered_at,
    -- Over the last five seconds: the present slot and the part of the one before it that lies within
    -- them; for a mailing that began later, over the time since.
    (coalesce(sum(
      CASE rate_slot(now()) - slot
        WHEN 0 THEN slot_n + before_n * (1 - rate_slot_share(now()))
        WHEN 1 THEN slot_n * (1 - rate_slot_share(now()))
        ELSE 0
      END
    ) FILTER (WHERE status = {Status.DELIVERED}), 0)
      / greatest(0.2, least(5, extract(
        epoch FROM now() - min(first_at) FILTER (WHERE status = {Status.DELIVERED})
      ))))::float8 AS rate
  FROM buckets b
  CROSS JOIN LATERAL (SELECT * FROM mailing_counts WHERE bucket = b.bucket AND mailing_id = g.id OFFSET 0) k
) p
CROSS JOIN LATERAL (
  SELECT coalesce(bool_and(e.finished), false) AS expanded
  FROM buckets b
  CROSS JOIN LATERAL (SELECT finished FROM expansions WHERE bucket = b.bucket AND mailing_id = g.id OFFSET 0) e
) x
WHERE g.id = ANY ($ids::bigint[])
ORDER BY g.id DESC;

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
SELECT EXISTS (SELECT FROM buckets b JOIN expansions e ON e.bucket = b.bucket AND e.mailing_id = $mailing_id);

-- name: update_mailing
-- A running mailing whose start is moved into the future, by the database's clock, is SCHEDULED again.
-- With another filter, rechecks begin once the new audience is expanded.
UPDATE mailings
SET title = $title, text = $text, filter = $filter, starts_at = {start},
  ends_at = $end_time, audience_mode = $audience_mode, semantics = $semantics, priority = $priority,
  max_rate = $max_rate, endpoint = $endpoint, max_attempts = $max_attempts, initial_backoff = $initial_backoff,
  max_backoff = $max_backoff, labels = $labels, important = $important, audience = $audience,
  sending_hours = $sending_hours, holidays = $holidays, local_start = $local_start, skip_after = $skip_after,
  version = version + 1, updated_at = now(),
  state = CASE WHEN state = {MailingState.RUNNING} AND {start} > now() THEN {MailingState.SCHEDULED} ELSE state END,
  recheck_at = CASE WHEN filter = $filter THEN recheck_at ELSE 'infinity' END
WHERE id = $mailing_id;

-- name: wait_for_expansion
-- Waits for steps in progress, which take clients in by the old timetable.
SELECT bucket FROM expansions WHERE mailing_id = $mailing_id ORDER BY bucket FOR UPDATE;

-- name: judge_anew
-- Lets all that waits for a later moment be judged by the mailing's new timetable: the next claim puts it off again.
-- What a claim before put off by the old one, and settles after this, `expedite` finds a minute later.
WITH noted AS (UPDATE mailings SET judged_at = now() WHERE id = $mailing_id)
UPDATE batches SET due_at = now(), opened_at = now() WHERE mailing_id = $mailing_id AND due_at > now();

-- name: calendar_names
SELECT name FROM calendars ORDER BY name;

-- fragment: moved
version = version + 1, updated_at = now()
WHERE id = $mailing_id AND state = ANY ($sources::smallint[])

-- name: pause_mailing
UPDATE mailings SET state = {MailingState.PAUSED}, {moved};

-- name: resume_mailing
-- One that has not begun, or whose start is ahead, is scheduled; it starts at once when its time has come.
UPDATE mailings SET state = CASE
    WHEN starts_at <= now()
      AND EXISTS (SELECT FROM buckets b JOIN expansions e ON e.bucket = b.bucket AND e.mailing_id = $mailing_id)
      THEN {MailingState.RUNNING}
    ELSE {MailingState.SCHEDULED}
  END, {moved};

-- name: cancel_mailing
UPDATE mailings SET state = {MailingState.CANCELLED}, {moved};

-- name: find_state
SELECT state FROM mailings WHERE id = $mailing_id;

-- name: mailing_versions
-- What differs when a mailing was changed since it was read; a start by the clock leaves the version
-- as it is and changes updated_at.
SELECT id, version, updated_at FROM mailings WHERE id = ANY ($ids::bigint[]);
