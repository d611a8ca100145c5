-- Messages are kept for a time that is set, and then removed with their attempts, while counters and reports stay.
-- Removing goes on by itself, whoever began it: a mailing that is deleted, or messages that were kept long enough.

-- migrate:up

SET LOCAL lock_timeout = '300ms';

-- Since when the messages of a mailing are gone for everybody; the rows follow.
ALTER TABLE mailings ADD COLUMN messages_removed_at timestamptz;

-- What is still being removed: `remaining` messages, by the counters. With `keeps_report` counters and report stay.
CREATE TABLE removals (
  mailing_id   bigint      PRIMARY KEY,
  remaining    bigint      NOT NULL,
  keeps_report boolean     NOT NULL,
  began_at     timestamptz NOT NULL DEFAULT now()
);

-- Whether a partition has messages of mailings that keep them. The LIMIT makes each a look-up by the key.
CREATE FUNCTION keeps_messages_v1(p_suffix text, p_lower bigint, p_upper bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  v_found boolean;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT FROM mailings g CROSS JOIN buckets b CROSS JOIN LATERAL (SELECT FROM messages_%s m'
    ' WHERE m.bucket = b.bucket AND m.mailing_id = g.id LIMIT 1) m'
    ' WHERE g.id >= $1 AND g.id < $2 AND g.messages_removed_at IS NULL)', p_suffix)
  INTO v_found USING p_lower, p_upper;
  RETURN v_found;
END $$;

-- Empties the partition of a mailing whose messages are to go, unless it has messages of others that stay: at once,
-- and with hardly any WAL. Returns whether it did. Runs, as what follows, with the rights of the tables' owner. It waits
-- for a second, in which an autovacuum gives way; only who reads all partitions may wait behind it.
CREATE FUNCTION empty_ledger_partition_v1(p_mailing_id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1200ms' AS $$
DECLARE
  p record;
BEGIN
  SELECT * INTO p FROM ledger_partitions WHERE lower <= p_mailing_id AND upper > p_mailing_id;
  IF NOT FOUND OR EXISTS (SELECT FROM mailings WHERE id = p_mailing_id AND messages_removed_at IS NULL)
    OR keeps_messages_v1(p.suffix, p.lower, p.upper)
  THEN
    RETURN false;
  END IF;
  EXECUTE format('LOCK TABLE messages_%1$s, attempts_%1$s IN ACCESS EXCLUSIVE MODE', p.suffix);
  IF keeps_messages_v1(p.suffix, p.lower, p.upper) THEN
    RETURN false;  -- somebody wrote meanwhile
  END IF;
  EXECUTE format('TRUNCATE messages_%1$s, attempts_%1$s', p.suffix);
  RETURN true;
END $$;

-- Drops a partition that was emptied, whose mailing ids were all given and of which none keeps messages. Returns
-- whether it did.
CREATE FUNCTION drop_ledger_partition_v1(p_suffix text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '100ms' AS $$
DECLARE
  p record;
BEGIN
  SELECT * INTO p FROM ledger_partitions WHERE suffix = p_suffix;
  IF NOT FOUND OR p.upper > (SELECT last_value + is_called::int FROM mailing_id)
    OR EXISTS (SELECT FROM mailings WHERE id >= p.lower AND id < p.upper AND messages_removed_at IS NULL)
  THEN
    RETURN false;
  END IF;
  LOCK TABLE ONLY messages, ONLY attempts IN ACCESS EXCLUSIVE MODE;
  EXECUTE format('LOCK TABLE messages_%1$s, attempts_%1$s IN ACCESS EXCLUSIVE MODE', p.suffix);
  IF pg_relation_size(format('messages_%s', p.suffix)::regclass) > 0
    OR pg_relation_size(format('attempts_%s', p.suffix)::regclass) > 0
  THEN
    RETURN false;
  END IF;
  EXECUTE format('DROP TABLE messages_%1$s, attempts_%1$s', p.suffix);
  RETURN true;
END $$;

-- migrate:down

DROP FUNCTION drop_ledger_partition_v1, empty_ledger_partition_v1, keeps_messages_v1;
DROP TABLE removals;
ALTER TABLE mailings DROP COLUMN messages_removed_at;
