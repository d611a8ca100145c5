-- The change feed, read and removed. Its entries never change, and an entry is visible at the
-- latest with its number in `buckets`, so a statement that reads both misses nothing between.
-- include: retention
-- include: timeline

-- fragment: entries
journal

-- fragment: number
seq

-- fragment: floors
journal_floors

-- name: poll_changes
-- The last number of each bucket, and its entries behind the numbers in $positions (by bucket, from 0),
-- at most $most of each. One snapshot: a bucket with fewer entries has no more up to journal_seq.
SELECT {timeline} AS timeline, b.bucket, b.journal_seq, f.floor, j.seq, j.mailing_id, j.at, j.client_ids, j.statuses, j.receipts,
  j.receipt_codes
FROM buckets b
JOIN journal_floors f ON f.bucket = b.bucket
LEFT JOIN LATERAL (
  SELECT seq, mailing_id, at, client_ids, statuses, receipts, receipt_codes
  FROM journal
  WHERE bucket = b.bucket AND seq > ($positions::bigint[])[b.bucket + 1]
  ORDER BY seq
  LIMIT $most
) j ON true
ORDER BY b.bucket, j.seq;

-- name: read_changes
-- At most $most entries of one bucket behind $after and up to $until, of one mailing or (0) of all.
SELECT f.floor, b.journal_seq, j.seq, j.mailing_id, j.at, j.client_ids, j.statuses, j.receipts, j.receipt_codes
FROM buckets b
JOIN journal_floors f ON f.bucket = b.bucket
LEFT JOIN LATERAL (
  SELECT seq, mailing_id, at, client_ids, statuses, receipts, receipt_codes
  FROM journal
  WHERE bucket = b.bucket AND seq > $after AND seq <= $until AND ($mailing_id::bigint = 0 OR mailing_id = $mailing_id)
  ORDER BY seq
  LIMIT $most
) j ON true
WHERE b.bucket = $bucket
ORDER BY j.seq;
