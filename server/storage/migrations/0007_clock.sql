-- Moments that tell when the database's clock was set back: written as "now", and still ahead.

-- migrate:up

-- When the batch was opened; what is due then or a retry later is due, whatever the clock says since.
ALTER TABLE batches ADD COLUMN opened_at timestamptz NOT NULL DEFAULT now();

-- When the batch was leased last: a lease is as long as it was, and not longer because of the clock.
ALTER TABLE batches ADD COLUMN leased_at timestamptz;

-- migrate:down

ALTER TABLE batches DROP COLUMN opened_at, DROP COLUMN leased_at;
