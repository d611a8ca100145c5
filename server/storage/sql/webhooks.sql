-- Subscribers outside. One replica at a time serves each; its positions move when it was told.
-- include: timeline

-- name: register_webhook
-- A new one is told of what happens from now on. A changed configuration ends a wait, and asks one that had enough.
INSERT INTO webhooks AS w (name, config, feed_positions, log_positions)
VALUES (
  $name, $config,
  (SELECT array_agg(journal_seq ORDER BY bucket) FROM buckets), (SELECT array_agg(seq ORDER BY bucket) FROM log_seqs)
)
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
  last_success_at = CASE WHEN $told::boolean THEN now() ELSE last_success_at END,
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
-- With how many numbers of both feeds lie behind the positions, and the time of the oldest entry behind them.
SELECT {timeline} AS timeline, w.name, w.disabled, w.feed_positions, w.last_success_at, w.last_error,
  nullif(greatest(w.next_attempt_at, now()), now()) AS next_attempt_at, f.waiting, now() - f.oldest AS lag
FROM webhooks w
CROSS JOIN LATERAL (
  SELECT coalesce(sum(b.journal_seq - w.feed_positions[b.bucket + 1] + s.seq - w.log_positions[b.bucket + 1]), 0)::bigint
      AS waiting,
    min(least(j.at, l.at)) AS oldest
  FROM buckets b
  JOIN log_seqs s ON s.bucket = b.bucket
  LEFT JOIN LATERAL (
    SELECT at FROM journal WHERE bucket = b.bucket AND seq > w.feed_positions[b.bucket + 1] ORDER BY seq LIMIT 1
  ) j ON true
  LEFT JOIN LATERAL (
    SELECT at FROM log WHERE bucket = b.bucket AND no > w.log_positions[b.bucket + 1] ORDER BY no LIMIT 1
  ) l ON true
) f
WHERE w.name = ANY($names::text[]);

-- name: list_labels
SELECT id, labels FROM mailings WHERE id = ANY($ids::bigint[]);
