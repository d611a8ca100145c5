-- How far a standby is behind its primary.

-- name: position
-- How far the primary's log has been written, in bytes.
SELECT (pg_current_wal_lsn() - '0/0')::bigint AS position;

-- name: replayed
-- How far a standby has replayed it; null on a server that is none.
SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint AS position WHERE pg_is_in_recovery()
UNION ALL SELECT NULL WHERE NOT pg_is_in_recovery();
