-- One row a key: its value, or the tombstone of a deleted one.
--
-- A row is written only by a newer stamp, so a write can be repeated, and one that arrives late does no harm. A
-- tombstone keeps its stamp for that reason until the sweeper takes it.
--
-- The stamp is in no index: an update of a value then stays within its page (a heap-only tuple).
CREATE TABLE kv (
    key        text     NOT NULL COLLATE "C" PRIMARY KEY, -- in byte order
    stamp      bytea    NOT NULL,                         -- 16 bytes: who wrote last, and when
    kind       smallint NOT NULL,                         -- 0 tombstone, 1 JSON, 2 binary
    expires_at bigint,                                    -- milliseconds since the Unix epoch; NULL stays
    json       json,                                      -- the value of kind 1, byte for byte as it came in
    bin        bytea,                                     -- the value of kind 2
    replaced   boolean  NOT NULL                          -- whether the last write found a live value
) WITH (fillfactor = 90);

-- What the sweeper looks for; rows that are neither cost nothing here.
CREATE INDEX kv_tombstone ON kv (key) WHERE kind = 0;
CREATE INDEX kv_expiry ON kv (expires_at) WHERE expires_at IS NOT NULL;

-- JSON as JSONB; NULL where JSONB refuses what JSON allows, as \u0000, a lone surrogate or 1e400000.
CREATE FUNCTION try_jsonb(value json) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN value::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;
END
$$;

-- The live JSON values for people and reports; the crate does not read it.
CREATE VIEW live_json AS
SELECT key, try_jsonb(json) AS value, to_timestamp(expires_at / 1000.0) AS expires_at
FROM kv
WHERE kind = 1 AND (expires_at IS NULL OR expires_at > extract(epoch FROM statement_timestamp()) * 1000);
