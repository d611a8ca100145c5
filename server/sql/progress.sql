-- What the watchers of mailings ask again and again.

-- name: mailing_versions
-- Whether anything was done to these mailings since they were read.
SELECT id, version FROM mailings WHERE id = ANY ($1::bigint[]);
