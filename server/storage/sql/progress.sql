-- What the watchers of mailings ask again and again.

-- name: mailing_versions
-- Whether anything was done to these mailings since they were read. A start by the clock
-- leaves the version as it is.
SELECT id, version, updated_at FROM mailings WHERE id = ANY ($1::bigint[]);
