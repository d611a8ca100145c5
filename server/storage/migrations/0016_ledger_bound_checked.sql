-- Reads all messages and attempts once, while everything goes on: so that the next file need not.

-- migrate:up

ALTER TABLE messages VALIDATE CONSTRAINT ledger_bound;
ALTER TABLE attempts VALIDATE CONSTRAINT ledger_bound;

-- migrate:down

-- Nothing: that the bound was checked changes nothing for anybody.
