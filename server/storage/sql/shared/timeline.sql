-- Which history of the database this is.

-- fragment: timeline
-- Each promotion of a standby begins another one. None on a standby.
CASE WHEN NOT pg_is_in_recovery() THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint END
