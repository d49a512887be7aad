-- One row a key: its value, or the tombstone of a deleted one.
--
-- A row is written only by a newer stamp, so a write can be repeated, and one that arrives late does no harm. A
-- tombstone keeps its stamp for that reason until the sweeper takes it.
CREATE TABLE kv (
    key        TEXT    NOT NULL PRIMARY KEY, -- in byte order
    stamp      BLOB    NOT NULL,             -- 16 bytes: who wrote last, and when
    kind       INTEGER NOT NULL,             -- 0 tombstone, 1 JSON, 2 binary
    expires_at INTEGER,                      -- milliseconds since the Unix epoch; NULL stays
    json       TEXT,                         -- the value of kind 1, byte for byte as it came in
    bin        BLOB                          -- the value of kind 2
) STRICT, WITHOUT ROWID;

-- What the sweeper looks for; rows that are neither cost nothing here.
CREATE INDEX kv_tombstone ON kv (stamp) WHERE kind = 0;
CREATE INDEX kv_expiry ON kv (expires_at) WHERE expires_at IS NOT NULL;
