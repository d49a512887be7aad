-- What this database is; one row.
CREATE TABLE meta (
    id             INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    identity       BLOB    NOT NULL, -- 16 random bytes, made once: tells this database from every other
    canary         INTEGER NOT NULL, -- raised by every ping; lower than remembered means an older copy was restored
    gc_floor       BLOB    NOT NULL, -- tombstones older than this stamp may be gone: an older write is not guarded
    schema         INTEGER NOT NULL, -- number of the newest migration applied
    min_compatible INTEGER           -- oldest `schema` whose program may use this one; NULL: none older
) STRICT;

INSERT INTO meta (id, identity, canary, gc_floor, schema)
VALUES (1, randomblob(16), 0, zeroblob(16), 0);

-- A write that lost against a newer one of somebody else after it was acknowledged on this machine.
CREATE TABLE conflict (
    stamp      BLOB    NOT NULL PRIMARY KEY, -- of the write that lost
    key        TEXT    NOT NULL,
    operation  TEXT    NOT NULL,
    kind       INTEGER NOT NULL,             -- 0 a delete, 1 JSON, 2 binary
    expires_at INTEGER,
    json       TEXT,
    bin        BLOB,
    winner     BLOB    NOT NULL,             -- stamp of the write that stayed
    at         INTEGER NOT NULL              -- milliseconds since the Unix epoch
) STRICT, WITHOUT ROWID;
