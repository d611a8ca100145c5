-- Receipts: recorded in batches of one bucket, in any order and more than once; the greater receipt holds.

-- name: record_receipts
-- Records reports about messages of an endpoint's mailings, one per message, and returns the messages that there are.
-- What is not greater than what is known changes nothing. Each mailing gets an entry of the change feed.
WITH given AS (
  SELECT g.mailing_id, g.client_id, g.receipt, g.code
  FROM unnest($mailing_ids::bigint[], $client_ids::bigint[], $receipts::smallint[], $codes::text[])
    AS g(mailing_id, client_id, receipt, code)
  WHERE EXISTS (
    SELECT 1 FROM mailings m
    WHERE m.id = g.mailing_id AND m.messages_removed_at IS NULL
      AND coalesce(nullif(m.endpoint, ''), 'default') = $endpoint::text
  ) AND (
    EXISTS (SELECT 1 FROM clients c WHERE c.bucket = $bucket AND c.id = g.client_id)
    OR EXISTS (
      SELECT 1 FROM messages m WHERE m.bucket = $bucket AND m.mailing_id = g.mailing_id AND m.client_id = g.client_id
    ) OR EXISTS (
      SELECT 1 FROM unwritten u
      WHERE u.bucket = $bucket AND u.mailing_id = g.mailing_id
        AND u.lowest <= g.client_id AND u.highest >= g.client_id AND g.client_id = ANY (u.client_ids)
    )
  )
), changed AS (
  -- Ordered, so that two writers with the same messages wait for one another.
  INSERT INTO receipts AS r (bucket, mailing_id, client_id, receipt, code, at)
  SELECT $bucket, mailing_id, client_id, receipt, code, now() FROM given ORDER BY mailing_id, client_id
  ON CONFLICT (bucket, mailing_id, client_id) DO UPDATE SET
    former = r.receipt, former_code = r.code, receipt = excluded.receipt, code = excluded.code, at = excluded.at
  WHERE excluded.receipt > r.receipt
  RETURNING mailing_id, client_id, receipt, code, former, former_code
), tick AS (
  -- Locks the bucket's row before the counters, as all statements do.
  UPDATE buckets b SET journal_seq = b.journal_seq + c.n
  FROM (SELECT count(DISTINCT mailing_id) AS n FROM changed) c
  WHERE b.bucket = $bucket AND c.n > 0
  RETURNING b.journal_seq, c.n
), counted AS (
  INSERT INTO receipt_counts AS k (bucket, mailing_id, receipt, code, n)
  SELECT $bucket, d.mailing_id, d.receipt, d.code, sum(d.n)
  FROM (
    SELECT mailing_id, receipt, code, 1 AS n FROM changed
    UNION ALL SELECT mailing_id, former, former_code, -1 FROM changed WHERE former > 0
  ) d CROSS JOIN tick
  GROUP BY d.mailing_id, d.receipt, d.code
  HAVING sum(d.n) <> 0
  ORDER BY d.mailing_id, d.receipt, d.code
  ON CONFLICT (bucket, mailing_id, receipt, code) DO UPDATE SET n = k.n + excluded.n
), entries AS (
  INSERT INTO journal (bucket, seq, mailing_id, client_ids, statuses, receipts, receipt_codes)
  SELECT $bucket, t.journal_seq - t.n + e.no, e.mailing_id, e.client_ids, e.statuses, e.receipts, e.codes
  FROM tick t CROSS JOIN (
    SELECT row_number() OVER (ORDER BY c.mailing_id) AS no, c.mailing_id,
      array_agg(c.client_id ORDER BY c.client_id) AS client_ids,
      array_agg(coalesce(m.status, {Status.PENDING})::smallint ORDER BY c.client_id) AS statuses,
      array_agg(c.receipt ORDER BY c.client_id) AS receipts,
      array_agg(c.code ORDER BY c.client_id) AS codes
    FROM changed c
    LEFT JOIN LATERAL (
      SELECT status FROM messages
      WHERE bucket = $bucket AND mailing_id = c.mailing_id AND client_id = c.client_id
      UNION ALL SELECT status FROM unwritten u
      WHERE u.bucket = $bucket AND u.mailing_id = c.mailing_id
        AND u.lowest <= c.client_id AND u.highest >= c.client_id AND c.client_id = ANY (u.client_ids)
      LIMIT 1
    ) m ON true
    GROUP BY c.mailing_id
  ) e
)
SELECT g.mailing_id, g.client_id, c.client_id IS NOT NULL AS is_new
FROM given g LEFT JOIN changed c USING (mailing_id, client_id);

-- name: note_provider_ids
-- Remembers the ids that a gateway gave messages, before they are settled: the last one of each holds.
INSERT INTO receipts AS r (bucket, mailing_id, client_id, provider_id)
SELECT $bucket, $mailing_id, g.client_id, g.provider_id
FROM unnest($client_ids::bigint[], $provider_ids::text[]) AS g(client_id, provider_id)
ORDER BY g.client_id
ON CONFLICT (bucket, mailing_id, client_id) DO UPDATE SET provider_id = excluded.provider_id
WHERE r.provider_id <> excluded.provider_id;

-- name: find_by_provider
SELECT provider_id, mailing_id, client_id FROM receipts WHERE provider_id = ANY($provider_ids::text[]);

-- name: hold_receipts
-- Keeps reports about ids that no message has yet.
INSERT INTO held_receipts AS h (bucket, endpoint, provider_id, receipt, code)
SELECT * FROM unnest(
  $buckets::int[], $endpoints::text[], $provider_ids::text[], $receipts::smallint[], $codes::text[]
) AS g(bucket, endpoint, provider_id, receipt, code)
ORDER BY bucket, endpoint, provider_id
ON CONFLICT (bucket, endpoint, provider_id) DO UPDATE SET receipt = excluded.receipt, code = excluded.code
WHERE excluded.receipt > h.receipt;

-- name: find_held
-- Held reports whose message is known by now.
SELECT h.endpoint, h.provider_id, h.receipt, h.code
FROM held_receipts h
WHERE h.provider_id IN (
  SELECT r.provider_id FROM receipts r
  WHERE r.provider_id = ANY (ARRAY(SELECT provider_id FROM held_receipts)) AND r.provider_id <> ''
)
LIMIT $most;

-- name: release_held
DELETE FROM held_receipts h
USING unnest($buckets::int[], $endpoints::text[], $provider_ids::text[], $receipts::smallint[])
  AS g(bucket, endpoint, provider_id, receipt)
WHERE h.bucket = g.bucket AND h.endpoint = g.endpoint AND h.provider_id = g.provider_id AND h.receipt <= g.receipt;

-- name: forget_held
DELETE FROM held_receipts WHERE at < now() - $keep::interval;

-- name: read_receipts
-- What is known of messages, given by bucket, mailing and client.
SELECT r.mailing_id, r.client_id, r.receipt, r.at, r.code, r.provider_id
FROM unnest($buckets::int[], $mailing_ids::bigint[], $client_ids::bigint[]) AS g(bucket, mailing_id, client_id)
JOIN receipts r USING (bucket, mailing_id, client_id);

-- name: count_receipts
-- The receipts of a mailing by code, the most frequent ones first.
SELECT k.receipt, k.code, sum(k.n)::bigint AS n
FROM buckets b
CROSS JOIN LATERAL (
  SELECT receipt, code, n FROM receipt_counts WHERE bucket = b.bucket AND mailing_id = $mailing_id OFFSET 0
) k
GROUP BY k.receipt, k.code
HAVING sum(k.n) > 0
ORDER BY n DESC, k.receipt, k.code
LIMIT $most;
