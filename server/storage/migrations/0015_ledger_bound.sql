-- Messages and attempts become partitioned by range of mailing id, in three files so that nobody waits: the tables
-- that are there become the first partition as they are. Here: an upper bound of their ids, not yet checked for the
-- rows that are there. It leaves room for the mailings that are made until the third file, which lifts it again.

-- migrate:up

SET LOCAL lock_timeout = '300ms';
DO $$
DECLARE
  v_bound bigint;
BEGIN
  SELECT CASE WHEN s.is_called
      THEN s.last_value + 1 + greatest(1000, (SELECT 3 * count(*) FROM mailings WHERE created_at > now() - interval '1 day'))
    ELSE 1 END
  INTO v_bound FROM mailing_id s;
  EXECUTE format('ALTER TABLE messages ADD CONSTRAINT ledger_bound CHECK (mailing_id < %s) NOT VALID', v_bound);
  EXECUTE format('ALTER TABLE attempts ADD CONSTRAINT ledger_bound CHECK (mailing_id < %s) NOT VALID', v_bound);
END $$;

-- migrate:down

ALTER TABLE messages DROP CONSTRAINT ledger_bound;
ALTER TABLE attempts DROP CONSTRAINT ledger_bound;
