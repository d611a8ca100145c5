-- The log's entries, numbered under their bucket's row of log_seqs.

-- name: record_log
-- Writes entries into one bucket, in their order, as the doing of $8. Takes the last lock of its transaction:
-- nothing that others wait for may be locked after it.
WITH tick AS (
  UPDATE log_seqs SET seq = seq + cardinality($2::smallint[]) WHERE bucket = $1 RETURNING seq
)
INSERT INTO log (bucket, no, level, event, text, mailing_id, message_id, client_id, details, principal)
SELECT $1, t.seq - cardinality($2::smallint[]) + e.ordinality, e.level, e.event, e.text, e.mailing_id,
  CASE WHEN e.mailing_id > 0 AND e.client_id > 0 THEN e.mailing_id << 32 | e.client_id ELSE 0 END,
  e.client_id, e.details::jsonb, $8
FROM tick t
CROSS JOIN unnest($2::smallint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[])
  WITH ORDINALITY AS e(level, event, text, mailing_id, client_id, details, ordinality);

-- name: note_expanded
-- Notes which mailings have their whole audience; each is returned once.
UPDATE mailings m SET expanded_at = now()
WHERE m.expanded_at IS NULL AND m.state IN (2, 3, 4)
  AND EXISTS (SELECT FROM buckets b JOIN expansions e ON e.bucket = b.bucket AND e.mailing_id = m.id)
  AND NOT EXISTS (SELECT FROM expansions e WHERE e.mailing_id = m.id AND NOT e.finished)
RETURNING m.id;

-- name: totals
-- How many messages mailings have, by status.
SELECT k.mailing_id, k.status, sum(k.n)::bigint AS n
FROM buckets b JOIN mailing_counts k ON k.bucket = b.bucket AND k.mailing_id = ANY($1::bigint[])
GROUP BY 1, 2 HAVING sum(k.n) > 0
ORDER BY 1, 2;
