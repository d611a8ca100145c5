-- What gateways report about messages after they accepted them. Rows of their own: a report may come before the
-- message is settled, in any order and more than once, and most messages never get one.

-- migrate:up

-- One row per message of which the gateway's id or a report is known. `receipt` only grows; `former` and `former_code`
-- are what the last change replaced, so that one statement can count it.
CREATE TABLE receipts (
  mailing_id  bigint      NOT NULL,
  client_id   bigint      NOT NULL,
  at          timestamptz,
  bucket      int         NOT NULL,
  receipt     smallint    NOT NULL DEFAULT 0 CHECK (receipt BETWEEN 0 AND 4),
  former      smallint    NOT NULL DEFAULT 0,
  code        text        NOT NULL DEFAULT '',
  former_code text        NOT NULL DEFAULT '',
  provider_id text        NOT NULL DEFAULT '',
  PRIMARY KEY (bucket, mailing_id, client_id)
) WITH (fillfactor = 80);
CREATE INDEX receipts_of_provider ON receipts (provider_id) WHERE provider_id <> '';

CREATE TABLE receipt_counts (
  bucket     int      NOT NULL,
  mailing_id bigint   NOT NULL,
  receipt    smallint NOT NULL,
  code       text     NOT NULL,
  n          bigint   NOT NULL,
  PRIMARY KEY (bucket, mailing_id, receipt, code)
) WITH (fillfactor = 50);

-- Reports about ids of gateways that no message has yet: the answer that names it may still have to be recorded.
CREATE TABLE held_receipts (
  bucket      int         NOT NULL,
  endpoint    text        NOT NULL,
  provider_id text        NOT NULL,
  receipt     smallint    NOT NULL,
  code        text        NOT NULL,
  at          timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (bucket, endpoint, provider_id)
);

-- An entry about receipts has them parallel to its clients; its statuses are those that the messages have.
ALTER TABLE journal ADD COLUMN receipts smallint[], ADD COLUMN receipt_codes text[];

-- migrate:down

ALTER TABLE journal DROP COLUMN receipts, DROP COLUMN receipt_codes;
DROP TABLE held_receipts, receipt_counts, receipts;
