-- Daily reports: what happened on a day, and which replica sends it.

-- name: mailings_of_day
-- Mailings of which messages may have ended between two moments.
SELECT id, title, coalesce(nullif(endpoint, ''), 'default') AS endpoint, state FROM mailings
WHERE starts_at < $ends_at AND created_at < $ends_at
  AND (state IN ({MailingState.RUNNING}, {MailingState.PAUSED}) OR updated_at >= $begins_at)
ORDER BY id;

-- name: counters_of
-- The counters of a mailing by status and reason; those that were written outside of the day as well are not whole.
SELECT k.status, k.reason, sum(k.n)::bigint AS n,
  bool_and(k.first_at >= $begins_at AND k.last_at < $ends_at) AS whole,
  bool_or(k.last_at >= $begins_at AND k.first_at < $ends_at) AS touched
FROM buckets b
CROSS JOIN LATERAL (
  SELECT * FROM mailing_counts
  WHERE bucket = b.bucket AND mailing_id = $mailing_id AND status <> {Status.PENDING} AND n > 0 OFFSET 0
) k
GROUP BY k.status, k.reason;

-- name: hours_of
-- Deliveries and failures of a mailing by hour, in hours since the epoch.
SELECT f.key / 60 AS hour,
  coalesce(sum(f.n) FILTER (WHERE f.kind = {Figure.DELIVERED}), 0)::bigint AS delivered,
  coalesce(sum(f.n) FILTER (WHERE f.kind = {Figure.FAILED}), 0)::bigint AS failed
FROM buckets b
CROSS JOIN LATERAL (
  SELECT kind, key, n FROM mailing_figures
  WHERE bucket = b.bucket AND mailing_id = $mailing_id AND kind IN ({Figure.DELIVERED}, {Figure.FAILED})
    AND key >= $first_minute AND key < $last_minute
  OFFSET 0
) f
GROUP BY f.key / 60
ORDER BY f.key / 60;

-- name: ended_of
-- The messages of a mailing that ended undelivered on a day, for a mailing of more than one: by the key, bucket by bucket.
SELECT e.status, e.reason, sum(e.n)::bigint AS n
FROM buckets b
CROSS JOIN LATERAL (
  SELECT status, reason, count(*) AS n FROM messages
  WHERE bucket = b.bucket AND mailing_id = $mailing_id AND status > {Status.DELIVERED}
    AND settled_at >= $begins_at AND settled_at < $ends_at
  GROUP BY status, reason
  UNION ALL
  SELECT status, reason, sum(cardinality(client_ids)) FROM blocks
  WHERE bucket = b.bucket AND mailing_id = $mailing_id AND settled_at >= $begins_at AND settled_at < $ends_at
  GROUP BY status, reason
  OFFSET 0
) e
GROUP BY e.status, e.reason;

-- name: events_of_day
-- The events of a day that operators should know, with the last text of each.
SELECT event, count(*) AS n, (array_agg(text ORDER BY no DESC))[1] AS text FROM log
WHERE bucket = $bucket::int AND at >= $begins_at AND at < $ends_at AND event = ANY ($names::text[])
GROUP BY event, coalesce(details ->> 'endpoint', details ->> 'schedule_id', '') ORDER BY max(no);

-- name: look_at_report
-- The present, what became of the report of a day (0: nothing yet), and whether there was one of any day before.
SELECT now() AS now, coalesce((SELECT state FROM daily_reports WHERE day = $day), 0) AS state,
  EXISTS (SELECT 1 FROM daily_reports WHERE day < $day) AS before;

-- name: take_report
-- Takes a report for this replica, unless another one has it, it waits for its next try, or is done.
INSERT INTO daily_reports AS r (day, state, holder, held_until)
VALUES ($day, {ReportState.TRYING}, $holder, now() + $lease::interval)
ON CONFLICT (day) DO UPDATE SET holder = $holder, held_until = now() + $lease::interval
WHERE r.state = {ReportState.TRYING} AND r.next_try_at <= now() AND r.held_until <= now()
RETURNING tries;

-- name: hand_over_report
-- From here on the mail server may have it: no other replica sends it any more.
UPDATE daily_reports SET state = {ReportState.HANDED_OVER}, held_until = now() + $lease::interval
WHERE day = $day AND holder = $holder AND state = {ReportState.TRYING} AND held_until > now()
RETURNING day;

-- name: retry_report
UPDATE daily_reports SET state = {ReportState.TRYING}, tries = tries + 1, next_try_at = now() + $wait::interval,
  held_until = '-infinity', last_error = $error
WHERE day = $day AND holder = $holder
RETURNING day;

-- name: end_report
UPDATE daily_reports SET state = $state, last_error = $error, ended_at = now(), held_until = '-infinity'
WHERE day = $day AND holder = $holder AND state < {ReportState.SENT}
RETURNING day;

-- name: abandon_report
-- Ends a report whose sender died while the mail server may have got it, or for which it is too late.
INSERT INTO daily_reports AS r (day, state, last_error, ended_at)
VALUES ($day, $state, $error, now())
ON CONFLICT (day) DO UPDATE SET state = $state, ended_at = now(), holder = NULL
WHERE r.state = $found AND r.held_until <= now()
RETURNING last_error;
