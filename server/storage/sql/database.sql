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

-- name: describe_server
SELECT current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby,
  current_setting('transaction_read_only')::boolean AS read_only, current_user::text AS user;

-- name: list_forbidden_tables
-- Those of the named tables and sequences that exist and that this user may not use. Several privileges
-- in one text mean any of them: not every table is written in every way.
SELECT name, current_user::text AS user
FROM unnest($names::text[]) AS name JOIN pg_class AS class ON class.oid = to_regclass(name)
WHERE NOT CASE class.relkind WHEN 'S' THEN has_sequence_privilege(class.oid, 'USAGE')
  ELSE has_table_privilege(class.oid, 'SELECT')
    AND (name = ANY ($only_read::text[]) OR has_table_privilege(class.oid, 'INSERT, UPDATE, DELETE')) END
ORDER BY name;

-- name: backend_pid
-- The server process that executes this statement.
SELECT pg_backend_pid();

-- name: notify_dispatchers
-- Arrives when the transaction commits; one notification however often it is sent in it.
SELECT pg_notify('mailing', '');

-- name: is_read_only
-- Whether this session can write nothing: of a standby as well as of a server that was set so.
SELECT current_setting('transaction_read_only') = 'on';

-- name: plan_for_arguments
-- For the rest of the transaction.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true);
