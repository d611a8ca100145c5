-- What comes in: what a phone's deleted client leaves behind, operator codes that updates emptied, and
-- client numbers that end where an id would no longer fit into that of a message.

-- migrate:up

-- The key of the digests below: made here, so that each installation has its own.
CREATE TABLE phone_keys (
  key bytea PRIMARY KEY
);

INSERT INTO phone_keys (key)
VALUES (decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));

-- What is to be known of a phone after its client is gone, kept for a time: an opt-out, and the
-- mailings that it got. Not the phone itself: a digest of it.
CREATE TABLE phone_memories (
  digest        bytea       PRIMARY KEY,
  opted_out     boolean     NOT NULL,
  received      bigint[]    NOT NULL DEFAULT '{}',
  remembered_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX phone_memories_age ON phone_memories (remembered_at);

-- The mailings that the client's phone got when it was another client's. NULL, which takes no room, is none.
-- An id is half of the id of a message: beyond 32 bits two messages would share one. NOT VALID: rows that are
-- there already are not read, new ones are checked.
ALTER TABLE clients ADD COLUMN received bigint[], ADD CONSTRAINT clients_id_fits CHECK (id < 4294967296) NOT VALID;

-- 2^28 numbers in 16 buckets, fewer in more. A sequence that is beyond that already is left to the check above.
DO $$
DECLARE
  v_last bigint := (SELECT 4294967296 / count(*) - 1 FROM buckets);
BEGIN
  IF (SELECT last_value FROM client_no) <= v_last THEN
    EXECUTE format('ALTER SEQUENCE client_no MAXVALUE %s NO CYCLE', v_last);
  END IF;
END $$;

-- Operator codes that were derived from the phone and emptied by an update of another field.
UPDATE clients SET operator_code = substr(phone, 2, 3), version = version + 1, updated_at = now()
WHERE operator_code = '' AND phone ~ '^7[0-9]{10}$';

-- Tags that look alike are one: composed (NFC) and without the white space around them. Filters follow, so
-- that they find the same clients.
CREATE FUNCTION normal_tag(tag text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT btrim(normalize(tag, NFC), (
    SELECT string_agg(chr(code), '') FROM unnest(ARRAY[9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 133, 160, 5760, 8192, 8193,
      8194, 8195, 8196, 8197, 8198, 8199, 8200, 8201, 8202, 8232, 8233, 8239, 8287, 12288]) AS code
  ))
$$;

UPDATE clients SET tag = normal_tag(tag), version = version + 1, updated_at = now() WHERE tag <> normal_tag(tag);

UPDATE mailings
SET filter = jsonb_set(filter, '{tags}', (SELECT jsonb_agg(normal_tag(tag)) FROM jsonb_array_elements_text(filter->'tags') tag)),
  version = version + 1, updated_at = now()
WHERE EXISTS (SELECT FROM jsonb_array_elements_text(filter->'tags') tag WHERE tag <> normal_tag(tag));

DROP FUNCTION normal_tag(text);

-- Running mailings learn of those clients as of any change; an import would write the same.
WITH repaired AS (
  SELECT bucket, array_agg(id ORDER BY id) AS client_ids FROM clients WHERE updated_at = now() GROUP BY bucket
), tick AS (
  UPDATE client_change_seqs s SET seq = s.seq + 1 FROM repaired r WHERE r.bucket = s.bucket RETURNING s.bucket, s.seq
)
INSERT INTO client_changes (bucket, seq, client_ids)
SELECT bucket, seq, client_ids FROM repaired JOIN tick USING (bucket);

-- migrate:down

ALTER SEQUENCE client_no NO MAXVALUE;
ALTER TABLE clients DROP CONSTRAINT clients_id_fits, DROP COLUMN received;
DROP TABLE phone_memories, phone_keys;
