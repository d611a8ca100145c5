-- Messages and attempts, partitioned by range of mailing id. The tables so far are the first partition; the service
-- adds others ahead of the ids that are given. Messages of ids that it was too late for stand in the last one (`rest`).
-- Every key has the bucket and the mailing id, so they can still be distributed by bucket.

-- migrate:up

-- Given again in this file: messages, attempts. To the release before they are what they were.
SET LOCAL lock_timeout = '300ms';
DO $$
DECLARE
  v_table text;
  v_bound text;
  g record;
BEGIN
  LOCK TABLE messages, attempts IN ACCESS EXCLUSIVE MODE;
  FOR v_table IN SELECT unnest(ARRAY['messages', 'attempts']) LOOP
    SELECT substring(pg_get_constraintdef(oid) FROM '\d+') INTO STRICT v_bound
    FROM pg_constraint WHERE conrelid = v_table::regclass AND conname = 'ledger_bound' AND convalidated;
    EXECUTE format('ALTER TABLE %1$s RENAME TO %1$s_first', v_table);
    EXECUTE format('ALTER INDEX %1$s_pkey RENAME TO %1$s_first_pkey', v_table);
    EXECUTE format('CREATE TABLE %1$s (LIKE %1$s_first INCLUDING ALL EXCLUDING INDEXES) PARTITION BY RANGE (mailing_id)',
      v_table);
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT ledger_bound', v_table);
    FOR g IN
      SELECT a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS to_whom
      FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
      WHERE c.oid = format('%s_first', v_table)::regclass AND a.grantee <> c.relowner
    LOOP
      EXECUTE format('GRANT %s ON %s TO %s', g.privilege_type, v_table, g.to_whom);
    END LOOP;
  END LOOP;
  ALTER TABLE messages ADD PRIMARY KEY (bucket, mailing_id, client_id);
  ALTER TABLE attempts ADD PRIMARY KEY (bucket, mailing_id, client_id, number);
  FOR v_table IN SELECT unnest(ARRAY['messages', 'attempts']) LOOP
    EXECUTE format('ALTER TABLE %1$s ATTACH PARTITION %1$s_first FOR VALUES FROM (MINVALUE) TO (%2$s)', v_table, v_bound);
    EXECUTE format('CREATE TABLE %1$s_rest PARTITION OF %1$s DEFAULT', v_table);
    EXECUTE format('ALTER TABLE %s_first DROP CONSTRAINT ledger_bound', v_table);
  END LOOP;
  ALTER TABLE messages_rest SET (fillfactor = 95);
END $$;

-- A view names tables, not their names.
CREATE OR REPLACE VIEW ledger AS
  SELECT bucket, mailing_id, client_id, status, reason, attempts, created_at, due_at, settled_at, endpoint_status,
    endpoint_code, duration_ms, forgiven, maybe_sent
  FROM messages
  UNION ALL
  SELECT b.bucket, b.mailing_id, i.client_id, 1::smallint, 0::smallint, 0::smallint, b.created_at, b.due_at, NULL, NULL,
    NULL, NULL, NULL, NULL
  FROM batches b CROSS JOIN LATERAL unnest(b.client_ids) AS i(client_id) WHERE b.fresh
  UNION ALL
  SELECT k.bucket, k.mailing_id, i.client_id, k.status, k.reason, 0::smallint, k.created_at, k.due_at, k.settled_at,
    NULL, NULL, NULL, NULL, NULL
  FROM blocks k CROSS JOIN LATERAL unnest(k.client_ids) AS i(client_id);

-- The partitions by what their names end in, `first` or the first id: which mailings they have, from `lower` on and
-- before `upper`. The `rest` is not among them.
CREATE VIEW ledger_partitions AS
  SELECT substr(p.name, 10) AS suffix, coalesce(p.range[1]::bigint, 0) AS lower, p.range[2]::bigint AS upper
  FROM (
    SELECT c.relname::text AS name,
      regexp_match(pg_get_expr(c.relpartbound, c.oid), $x$FROM \((?:MINVALUE|'?(\d+)'?)\) TO \('?(\d+)'?\)$x$) AS range
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'messages'::regclass
  ) p
  WHERE p.range IS NOT NULL;

-- What changes partitions runs with the rights of their owner, so that the service need not have them. Nobody waits
-- longer for it than lock_timeout: it fails instead, and is tried again later.

-- Adds a partition for the next p_width mailing ids behind the last one, if that still ends at p_upper. Returns where
-- it ends; NULL when another replica was faster. Ids in the `rest` stay there.
CREATE FUNCTION add_ledger_partition_v1(p_upper bigint, p_width bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '200ms' AS $$
DECLARE
  v_table text;
  v_last bigint;
  v_lower bigint := p_upper;
BEGIN
  LOCK TABLE ONLY messages IN SHARE UPDATE EXCLUSIVE MODE;
  IF coalesce((SELECT max(upper) FROM ledger_partitions), 1) <> p_upper THEN
    RETURN NULL;
  END IF;
  FOR v_table IN SELECT unnest(ARRAY['messages', 'attempts']) LOOP
    EXECUTE format('SELECT max(m.last) FROM buckets b CROSS JOIN LATERAL (SELECT max(r.mailing_id) AS last FROM %s_rest r'
      ' WHERE r.bucket = b.bucket) m', v_table) INTO v_last;
    v_lower := greatest(v_lower, v_last + 1);
  END LOOP;
  FOR v_table IN SELECT unnest(ARRAY['messages', 'attempts']) LOOP
    EXECUTE format('CREATE TABLE %1$s_%2$s (LIKE %1$s INCLUDING ALL)', v_table, v_lower);
    EXECUTE format('ALTER TABLE %1$s ATTACH PARTITION %1$s_%2$s FOR VALUES FROM (%2$s) TO (%3$s)', v_table, v_lower,
      v_lower + p_width);
  END LOOP;
  EXECUTE format('ALTER TABLE messages_%s SET (fillfactor = 95)', v_lower);
  RETURN v_lower + p_width;
END $$;

-- migrate:down

-- Stop all replicas before: all messages are copied. What is left has a bound, as after the file before this one.
DROP FUNCTION add_ledger_partition_v1;
DROP VIEW ledger_partitions, ledger;
DO $$
DECLARE
  v_table text;
BEGIN
  FOR v_table IN SELECT unnest(ARRAY['messages', 'attempts']) LOOP
    EXECUTE format('ALTER TABLE %1$s RENAME TO %1$s_parts', v_table);
    EXECUTE format('ALTER INDEX %1$s_pkey RENAME TO %1$s_parts_pkey', v_table);
    EXECUTE format('CREATE TABLE %1$s (LIKE %1$s_parts INCLUDING ALL)', v_table);
    EXECUTE format('INSERT INTO %1$s SELECT * FROM %1$s_parts', v_table);
    EXECUTE format('DROP TABLE %s_parts', v_table);
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT ledger_bound CHECK (mailing_id < 9223372036854775807)', v_table);
  END LOOP;
  ALTER TABLE messages SET (fillfactor = 95);
END $$;
CREATE VIEW ledger AS
  SELECT bucket, mailing_id, client_id, status, reason, attempts, created_at, due_at, settled_at, endpoint_status,
    endpoint_code, duration_ms, forgiven, maybe_sent
  FROM messages
  UNION ALL
  SELECT b.bucket, b.mailing_id, i.client_id, 1::smallint, 0::smallint, 0::smallint, b.created_at, b.due_at, NULL, NULL,
    NULL, NULL, NULL, NULL
  FROM batches b CROSS JOIN LATERAL unnest(b.client_ids) AS i(client_id) WHERE b.fresh
  UNION ALL
  SELECT k.bucket, k.mailing_id, i.client_id, k.status, k.reason, 0::smallint, k.created_at, k.due_at, k.settled_at,
    NULL, NULL, NULL, NULL, NULL
  FROM blocks k CROSS JOIN LATERAL unnest(k.client_ids) AS i(client_id);
