-- Which creating call made what: a repeated call makes nothing.

-- name: find_request
SELECT method, digest, resource_id FROM requests WHERE bucket = $1 AND request_id = $2;

-- name: record_request
-- Returns no row when the id was used before. While another call with the same id is under
-- way this waits for its end, so of two simultaneous ones only one makes something.
INSERT INTO requests (bucket, request_id, method, digest, resource_id)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING
RETURNING resource_id;
