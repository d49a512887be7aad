-- What a replay of older operations needs: what loses is kept, and a statement can refuse to run in another database.

-- One stamp may lose under several keys, as that of a clear. No program kept a conflict before this.
DROP TABLE conflict;
CREATE TABLE conflict (
    stamp      bytea    NOT NULL,             -- of the write that lost
    key        text     NOT NULL COLLATE "C",
    operation  text     NOT NULL,             -- put, delete or append
    item_id    text,                          -- of an append
    kind       smallint NOT NULL,             -- 0 a delete, 1 JSON, 2 binary
    expires_at bigint,                        -- of a put
    json       json,
    bin        bytea,
    winner     bytea    NOT NULL,             -- stamp of the write that stayed
    at         bigint   NOT NULL,             -- milliseconds since the Unix epoch
    PRIMARY KEY (stamp, key)
);

-- Ends the statement that calls it: the database is not the one that was expected, or takes no writes. It is called only in
-- the branch where that was found.
CREATE FUNCTION refuse_identity() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'the server is a replica' USING ERRCODE = 'read_only_sql_transaction';
    END IF;
    RAISE EXCEPTION 'another database than this one is expected' USING ERRCODE = 'AS001';
END
$$;
