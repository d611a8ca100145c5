-- migrate:up

-- What a call answered that acts outside of the database, so that a repeated one does nothing.
ALTER TABLE requests ADD COLUMN answer bytea;

-- migrate:down

ALTER TABLE requests DROP COLUMN answer;
