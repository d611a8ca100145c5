-- Subscribers outside. One replica at a time serves each; its positions move when it has the events.
-- include: timeline

-- name: register_webhook
-- A new one gets what happens from now on. A changed configuration ends a wait, and asks one that had enough.
INSERT INTO webhooks AS w (name, config, feed_positions, log_positions)
SELECT $name, $config, f.positions, l.positions
FROM (SELECT array_agg(journal_seq ORDER BY bucket) AS positions FROM buckets) f
CROSS JOIN (SELECT array_agg(seq ORDER BY bucket) AS positions FROM log_seqs) l
ON CONFLICT (name) DO UPDATE SET config = excluded.config, disabled = false, failures = 0, last_error = '',
  next_attempt_at = '-infinity'
WHERE w.config <> excluded.config;

-- name: hold_webhook
-- Takes or keeps a subscriber for this replica, unless another one has it, it waits, or had enough.
UPDATE webhooks SET holder = $holder, held_until = now() + $lease::interval
WHERE name = $name AND NOT disabled AND next_attempt_at <= now() AND (holder = $holder OR held_until <= now())
RETURNING feed_positions, log_positions, failures;

-- name: advance_webhook
UPDATE webhooks SET feed_positions = $feed_positions, log_positions = $log_positions, failures = 0, last_error = '',
  last_success_at = CASE WHEN $delivered::boolean THEN now() ELSE last_success_at END,
  held_until = now() + $lease::interval
WHERE name = $name AND holder = $holder
RETURNING name;

-- name: fail_webhook
UPDATE webhooks SET failures = failures + 1, last_error = $error, disabled = $disabled::boolean,
  next_attempt_at = now() + $wait::interval, held_until = '-infinity', holder = NULL
WHERE name = $name AND holder = $holder;

-- name: release_webhook
UPDATE webhooks SET held_until = '-infinity', holder = NULL WHERE name = $name AND holder = $holder;

-- name: list_webhooks
-- With how many numbers of both feeds lie behind the positions, and the time of the oldest entry behind them:
-- numbers have no gaps, so it is the next one that is kept.
WITH positions AS MATERIALIZED (
  SELECT w.name, (p.no - 1)::int AS bucket, p.feed, p.log
  FROM webhooks w CROSS JOIN LATERAL unnest(w.feed_positions, w.log_positions) WITH ORDINALITY AS p (feed, log, no)
  WHERE w.name = ANY($names::text[])
), behind AS MATERIALIZED (
  SELECT p.name, sum(b.journal_seq - p.feed + s.seq - p.log)::bigint AS waiting, min(least(j.at, l.at)) AS oldest
  FROM positions p
  JOIN buckets b ON b.bucket = p.bucket
  JOIN log_seqs s ON s.bucket = b.bucket
  JOIN journal_floors jf ON jf.bucket = b.bucket
  JOIN log_floors lf ON lf.bucket = b.bucket
  LEFT JOIN journal j ON j.bucket = b.bucket AND j.seq = greatest(p.feed, jf.floor) + 1
  LEFT JOIN log l ON l.bucket = b.bucket AND l.no = greatest(p.log, lf.floor) + 1
  GROUP BY p.name
)
SELECT {timeline} AS timeline, w.name, w.disabled, w.feed_positions, w.last_success_at, w.last_error,
  nullif(greatest(w.next_attempt_at, now()), now()) AS next_attempt_at, coalesce(f.waiting, 0) AS waiting,
  now() - f.oldest AS lag
FROM webhooks w
LEFT JOIN behind f ON f.name = w.name
WHERE w.name = ANY($names::text[]);

-- name: list_labels
SELECT id, labels FROM mailings WHERE id = ANY($ids::bigint[]);
