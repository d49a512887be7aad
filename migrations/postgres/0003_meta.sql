-- What this database is; one row.
CREATE TABLE meta (
    id             integer NOT NULL PRIMARY KEY CHECK (id = 1),
    identity       bytea   NOT NULL, -- 16 random bytes, made once: tells this database from every other
    canary         bigint  NOT NULL, -- raised by every ping; lower than remembered means an older copy was restored
    gc_floor       bytea   NOT NULL, -- tombstones older than this stamp may be gone: an older write is not guarded
    schema         integer NOT NULL, -- number of the newest migration applied
    min_compatible integer           -- oldest `schema` whose program may use this one; NULL: none older
);

-- Each backend seeds random() from the system's source of randomness.
INSERT INTO meta (id, identity, canary, gc_floor, schema)
VALUES (
    1,
    decode(md5(random()::text || random()::text || clock_timestamp()::text || pg_backend_pid()::text), 'hex'),
    0,
    decode(repeat('00', 16), 'hex'),
    0
);

-- A write that lost against a newer one of somebody else after it was acknowledged on this machine.
CREATE TABLE conflict (
    stamp      bytea    NOT NULL PRIMARY KEY, -- of the write that lost
    key        text     NOT NULL COLLATE "C",
    operation  text     NOT NULL,
    kind       smallint NOT NULL,             -- 0 a delete, 1 JSON, 2 binary
    expires_at bigint,
    json       json,
    bin        bytea,
    winner     bytea    NOT NULL,             -- stamp of the write that stayed
    at         bigint   NOT NULL              -- milliseconds since the Unix epoch
);
