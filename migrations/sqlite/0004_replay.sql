-- What a replay of older operations needs: every delete is known to a list that comes later, and what loses is kept.

-- Stamp of the last delete of a key that has a value again; a tombstone's own stamp says it itself. A list that is made
-- later begins with it as its floor.
ALTER TABLE kv ADD COLUMN floor BLOB;

-- One stamp may lose under several keys, as that of a clear. No program kept a conflict before this.
DROP TABLE conflict;
CREATE TABLE conflict (
    stamp      BLOB    NOT NULL, -- of the write that lost
    key        TEXT    NOT NULL,
    operation  TEXT    NOT NULL, -- put, delete or append
    item_id    TEXT,             -- of an append
    kind       INTEGER NOT NULL, -- 0 a delete, 1 JSON, 2 binary
    expires_at INTEGER,          -- of a put
    json       TEXT,
    bin        BLOB,
    winner     BLOB    NOT NULL, -- stamp of the write that stayed
    at         INTEGER NOT NULL, -- milliseconds since the Unix epoch
    PRIMARY KEY (stamp, key)
) STRICT, WITHOUT ROWID;
