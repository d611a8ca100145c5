-- The dispatcher's queue of batches: scanned, leased with their messages, and settled.

-- fragment: day_full
-- Whether the last day of a mailing `m` that is over had no room for more, by its own quota or by that of its endpoint.
CASE WHEN m.ends_at <= now() THEN EXISTS (
  SELECT 1 FROM day_quotas q
  WHERE q.key IN ('mailing/' || m.id, 'endpoint/' || coalesce(nullif(m.endpoint, ''), 'default'))
    AND q.used >= q.quota AND q.ends_at >= m.ends_at AND q.ends_at < m.ends_at + interval '26 h'
) ELSE false END

-- name: scan
-- Due batches that nobody holds, by mailing and bucket. Takes no lock. Those that are too late all of them are over. Each
-- node only counts its batches.
WITH open AS MATERIALIZED (
  SELECT mailing_id, bucket, count(*) AS batches, max(due_at) AS last_due_at FROM batches
  WHERE due_at <= now() AND lease_until <= now()
  GROUP BY bucket, mailing_id
)
SELECT m.id AS mailing_id, b.bucket, b.batches, m.version, m.priority, m.endpoint,
  m.state = {MailingState.CANCELLED} OR coalesce(m.ends_at <= now(), false)
    OR coalesce(b.last_due_at + m.skip_after <= now(), false) AS over,
  {day_full} AS day_full
FROM open b JOIN mailings m ON m.id = b.mailing_id
WHERE (m.state IN ({MailingState.RUNNING}, {MailingState.CANCELLED}) OR m.ends_at <= now())
  AND NOT EXISTS (SELECT 1 FROM dispatch_settings WHERE stopped);

-- name: definitions
-- What the dispatcher needs of mailings, as of now. No rows while all sending is stopped, so that
-- leases are given up. The filter of an open audience is included, because clients who no longer
-- match it are skipped; a fixed audience (SNAPSHOT) stays as it was at the start.
SELECT id, version, state, title, text, endpoint, semantics, priority, ends_at, max_attempts, max_rate, important,
  timed OR EXISTS (SELECT 1 FROM dispatch_settings WHERE default_window_start IS NOT NULL) AS timed,
  max_per_day, max_per_day_timezone, {day_full} AS day_full,
  CASE WHEN audience_mode = {AudienceMode.OPEN} AND filter <> '{}' THEN coalesce(audience, filter) END AS filter,
  extract(epoch FROM initial_backoff)::float8 AS initial_backoff,
  extract(epoch FROM max_backoff)::float8 AS max_backoff
FROM mailings m WHERE id = ANY($ids::bigint[]) AND NOT EXISTS (SELECT 1 FROM dispatch_settings WHERE stopped);

-- name: change_numbers
SELECT bucket, seq FROM client_change_seqs;

-- name: changed_clients
-- Those of $client_ids that the changes behind $after up to $until name; all of them when one of the
-- changes is no longer kept. Reads one row for each change, and is only asked when there are some.
WITH fresh AS MATERIALIZED (
  SELECT client_ids FROM client_changes WHERE bucket = $bucket AND seq > $after AND seq <= $until
)
SELECT h.id FROM unnest($client_ids::bigint[]) AS h(id) JOIN (SELECT unnest(client_ids) AS id FROM fresh) c USING (id)
UNION
SELECT h.id FROM unnest($client_ids::bigint[]) AS h(id)
WHERE (SELECT count(*) FROM fresh) < $until::bigint - $after::bigint;

-- name: claim
-- Leases open batches and returns each with its messages, as columns. A NULL in the filter matches everybody.
SELECT * FROM claim_v1(
  p_bucket => $bucket::int, p_mailing_id => $mailing_id, p_version => $version, p_state => $state, p_most => $most,
  p_held => $held, p_lease => $lease, p_replica_id => $replica_id, p_max_backoff => $max_backoff,
  p_with_values => $with_values, p_tags => $tags, p_operator_codes => $operator_codes, p_timezones => $timezones,
  p_attributes => $attributes, p_chosen_ids => $chosen_ids
);

-- name: departures
-- When claimed messages of a timed mailing may leave, at or after $moments, in columns parallel to their clients. Seconds
-- count from the claim.
SELECT array_agg(client_id) AS client_ids, array_agg(opens_at) AS opens_at, array_agg(reason) AS reasons,
  array_agg(extract(epoch FROM nullif(closes_at, 'infinity') - $claimed_at::timestamptz)::float8) AS closes_in
FROM departures_v1(
  p_bucket => $bucket::int, p_mailing_id => $mailing_id, p_batch_no => $batch_no, p_client_ids => $client_ids,
  p_moments => $moments
);

-- name: release_orphans
-- Frees batches that this replica claimed without learning of it, because the connection was lost
-- before the answer arrived; $known are those it knows of. It sent nothing of the others, but an
-- earlier holder may have, so they stay marked.
UPDATE batches SET lease_until = '-infinity', holder = NULL
WHERE holder = $replica_id AND lease_until > now() AND no <> ALL($known::bigint[]);

-- name: release_all
-- Frees every batch, for when it is known that no holder is alive. What the holders sent is
-- unknown, so they stay named.
UPDATE batches SET lease_until = '-infinity' WHERE lease_until > now();

-- name: no_longer_match
-- Those of some clients, whose ids ascend, who do not meet a condition.
SELECT unnest($client_ids::bigint[]) AS id
EXCEPT
SELECT unnest(n.ids) FROM narrow_v1($bucket::int, $client_ids, NULL, $condition, $literals) n;

-- name: admit
-- Records that a mailing is about to be sent to clients, and returns those to whom it must not be:
-- they got, or are about to get, $cap messages of other mailings within $period. An $important mailing
-- goes to everybody.
SELECT id FROM admit_v1(
  p_bucket => $bucket::int, p_mailing_id => $mailing_id, p_client_ids => $client_ids, p_important => $important,
  p_cap => $cap, p_period => $period
);

-- name: settle
-- Records outcomes of a leased batch, only under the fence it was claimed with.
SELECT * FROM settle_v1(
  p_bucket => $bucket::int, p_mailing_id => $mailing_id, p_batch_no => $batch_no, p_fence => $fence, p_done => $done,
  p_kept => $kept, p_endpoint => $endpoint, p_client_ids => bigints_of($client_ids), p_attempts_before => $attempts_before,
  p_statuses => $statuses, p_reasons => $reasons, p_attempted => $attempted, p_uncounted => $uncounted,
  p_maybe_sent => $maybe_sent, p_endpoint_statuses => $endpoint_statuses, p_endpoint_codes => $endpoint_codes,
  p_durations => ints_of($durations), p_due_times => $due_times, p_failure_ids => $failure_ids,
  p_failure_numbers => $failure_numbers, p_failure_times => $failure_times, p_failure_classes => $failure_classes,
  p_failure_statuses => $failure_statuses, p_failure_codes => $failure_codes,
  p_failure_durations => $failure_durations, p_failure_excerpts => $failure_excerpts,
  p_event_levels => $event_levels, p_event_names => $event_names, p_event_texts => $event_texts,
  p_event_client_ids => $event_client_ids, p_event_details => $event_details
);
