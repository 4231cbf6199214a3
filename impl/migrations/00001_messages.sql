-- Works with SQLite and PostgreSQL. Never change a released migration; add a new one.

-- +goose Up

CREATE TABLE messages (
    id      TEXT   PRIMARY KEY, -- a UUIDv7, in the order of creation
    issuer  TEXT   NOT NULL,    -- the owner: issuer and
    subject TEXT   NOT NULL,    -- subject of the creating token
    text    TEXT   NOT NULL,
    version BIGINT NOT NULL     -- incremented by each change; the ETag
);

CREATE INDEX messages_of_subject ON messages (issuer, subject, id);

-- Used Idempotency-Keys. They outlive deleted messages, so that a retry does not create them again.
CREATE TABLE idempotency_keys (
    issuer  TEXT   NOT NULL,
    subject TEXT   NOT NULL,
    key     TEXT   NOT NULL,
    body    TEXT   NOT NULL, -- SHA-256 of the request's text
    message TEXT   NOT NULL, -- id of the created message
    expires BIGINT NOT NULL, -- Unix seconds
    PRIMARY KEY (issuer, subject, key)
);

CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires);
