-- Why nothing is sent to an endpoint, and until when it asked for patience.

-- migrate:up

-- While the breaker is not closed: 0 it does not answer as it should, 1 it refuses our credentials, 2 its
-- URL or method is wrong, 3 it refuses nearly everything.
ALTER TABLE endpoints ADD COLUMN suspension smallint NOT NULL DEFAULT 0 CHECK (suspension BETWEEN 0 AND 3);

-- It asked for patience at `paused_at`: nobody sends before `paused_until`.
ALTER TABLE endpoints ADD COLUMN paused_at timestamptz;
ALTER TABLE endpoints ADD COLUMN paused_until timestamptz;

-- migrate:down

ALTER TABLE endpoints DROP COLUMN suspension, DROP COLUMN paused_at, DROP COLUMN paused_until;
