-- What was fixed when the database was set up, and the notification of dispatchers.

-- name: count_buckets
-- The number of buckets, which every client id contains.
SELECT count(*) FROM buckets;

-- name: list_zones
-- The time zones that Postgres can compute with. Slow: it reads the zone files.
SELECT name FROM pg_timezone_names;

-- name: database_epoch
-- What distinguishes this database from others, such as the one it was restored from.
SELECT epoch FROM journal_epochs ORDER BY created_at DESC, epoch LIMIT 1;

-- name: notify_dispatchers
-- Arrives when the transaction commits; one notification however often it is sent in it.
SELECT pg_notify('mailing', '');
