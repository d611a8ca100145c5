-- The partitions of messages and attempts. Statements that change them fail when they would have to wait.

-- name: outlook
-- Where partitions end, how many are ahead of the next mailing's id, how many there are, and how many mailings a day
-- brings.
SELECT coalesce(max(p.upper), 1) AS upper, count(*) AS partitions,
  count(*) FILTER (WHERE p.upper > coalesce(pg_sequence_last_value('mailing_id'), 0) + 1) AS ahead,
  (SELECT count(*) FROM mailings WHERE created_at > now() - interval '1 day') AS pace
FROM ledger_partitions p;

-- name: add_partition
SELECT add_ledger_partition_v1($upper, $width);

-- name: list_passed
-- The partitions whose mailings have no messages any more and whose ids are all given, the oldest first.
SELECT p.suffix FROM ledger_partitions p
WHERE p.upper <= coalesce(pg_sequence_last_value('mailing_id'), 0) + 1
  AND NOT EXISTS (SELECT 1 FROM mailings g WHERE g.id >= p.lower AND g.id < p.upper AND g.messages_removed_at IS NULL)
  AND NOT EXISTS (SELECT 1 FROM removals r WHERE r.mailing_id >= p.lower AND r.mailing_id < p.upper)
ORDER BY p.lower
LIMIT $most;

-- name: drop_partition
SELECT drop_ledger_partition_v1($suffix);
