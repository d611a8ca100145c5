-- What is remembered of phones whose clients are gone, under a keyed digest.

-- fragment: digest
sha256((SELECT key FROM phone_keys) || convert_to($phone, 'UTF8'))

-- name: list_received
-- The open mailings that the client has a message of, or had by another client of the phone, but
-- for the messages that were cancelled unsent with the client: those may be sent to the next one.
SELECT coalesce(array_agg(g.id ORDER BY g.id), '{}') AS ids
FROM mailings g
WHERE g.audience_mode = {AudienceMode.OPEN} AND g.state <> {MailingState.CANCELLED} AND (
  g.id = ANY ($received::bigint[]) OR EXISTS (
    SELECT 1 FROM messages m
    WHERE m.bucket = $bucket AND m.mailing_id = g.id AND m.client_id = $client_id
      AND m.reason <> {Reason.CLIENT_DELETED}
    LIMIT 1
  ) OR EXISTS (
    SELECT 1 FROM unwritten u
    WHERE u.bucket = $bucket AND u.mailing_id = g.id
      AND u.lowest <= $client_id AND u.highest >= $client_id AND $client_id = ANY (u.client_ids)
  )
);

-- name: remember_phone
INSERT INTO phone_memories AS m (digest, opted_out, received)
VALUES ({digest}, $opted_out, $received)
ON CONFLICT (digest) DO UPDATE SET opted_out = m.opted_out OR excluded.opted_out,
  received = m.received || excluded.received, remembered_at = now();

-- name: recall_phone
-- The memory goes over to the client who has the phone now.
DELETE FROM phone_memories WHERE digest = {digest} RETURNING opted_out, received;

-- name: forget_old
DELETE FROM phone_memories WHERE remembered_at < now() - $keep::interval;
