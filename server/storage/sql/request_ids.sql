-- What creating calls made, by their request id: a repeated call makes nothing.

-- name: find_request
SELECT method, digest, resource_id FROM requests WHERE bucket = $bucket AND request_id = $request_id;

-- name: record_request
-- Returns no row when the id was used before. Waits for the end of another call with the same id, so
-- that only one of two simultaneous calls makes something.
INSERT INTO requests (bucket, request_id, method, digest, resource_id)
VALUES ($bucket, $request_id, $method, $digest, $resource_id)
ON CONFLICT DO NOTHING
RETURNING resource_id;

-- name: find_answer
-- What a call answered that acts outside of the database; NULL while it is going on, or was cut off.
SELECT method, digest, answer, now() - created_at > interval '1 minute' AS overdue
FROM requests
WHERE bucket = $bucket AND request_id = $request_id;

-- name: record_answer
UPDATE requests SET answer = $answer WHERE bucket = $bucket AND request_id = $request_id;

-- name: forget_request
DELETE FROM requests WHERE bucket = $bucket AND request_id = $request_id;

-- name: list_request_buckets
SELECT bucket FROM buckets ORDER BY bucket;

-- name: forget_requests
-- Forgets $most of a bucket's request ids that are older than $keep, and returns how many it forgot.
WITH old AS (
  SELECT request_id FROM requests WHERE bucket = $bucket AND created_at < now() - $keep::interval
  LIMIT $most
), gone AS (
  DELETE FROM requests WHERE bucket = $bucket AND request_id = ANY (ARRAY(SELECT request_id FROM old)) RETURNING 1
)
SELECT count(*) AS forgotten FROM gone;
