-- What SQLite and PostgreSQL both understand. A migration that has been released is never changed: add another.

-- +goose Up

CREATE TABLE messages (
    id      TEXT   PRIMARY KEY, -- a UUIDv7, so this is the order of creation
    issuer  TEXT   NOT NULL,    -- issuer and subject of the token that created it:
    subject TEXT   NOT NULL,    -- whose it is
    text    TEXT   NOT NULL,
    version BIGINT NOT NULL     -- one more with each change: its ETag
);

CREATE INDEX messages_of_subject ON messages (issuer, subject, id);

-- What an Idempotency-Key was used for. It outlives the message, which would otherwise be created again once deleted.
CREATE TABLE idempotency_keys (
    issuer  TEXT   NOT NULL,
    subject TEXT   NOT NULL,
    key     TEXT   NOT NULL,
    body    TEXT   NOT NULL, -- SHA-256 of what came with it
    message TEXT   NOT NULL, -- id of the message that was created
    expires BIGINT NOT NULL, -- Unix seconds
    PRIMARY KEY (issuer, subject, key)
);

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires);
