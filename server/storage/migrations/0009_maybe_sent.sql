-- What may have been sent is never recorded as not sent.

-- migrate:up

-- Whether some attempt may have arrived although nobody knows: its answer was lost, or its sender
-- died. NULL, which takes no room, is no. Earlier releases leave it as it is.
ALTER TABLE messages ADD COLUMN maybe_sent boolean;

-- migrate:down

ALTER TABLE messages DROP COLUMN maybe_sent;
