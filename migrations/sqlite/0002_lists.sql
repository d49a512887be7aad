-- One row a list, for ever: a list that was emptied or deleted goes on counting where it stopped, so that no position is
-- used twice.
--
-- The live items are exactly the positions from first_position up to, not including, next_position: appends take the
-- next one, trims and deletes move the first. So the length and the position of an index need no counting.
CREATE TABLE list (
    key            TEXT    NOT NULL PRIMARY KEY, -- in byte order
    floor          BLOB    NOT NULL,             -- stamp of the last delete: items not newer than it are gone
    max_stamp      BLOB    NOT NULL,             -- newest stamp that changed the list
    first_position INTEGER NOT NULL,
    next_position  INTEGER NOT NULL              -- only ever rises
) STRICT, WITHOUT ROWID;

-- One row an item. A trimmed item keeps its id, so that an append repeated after the trim is still a repetition.
--
-- The rows stand in the order they came, and the ids that we make are in that order too. So items of many lists that are
-- appended together fill a few pages at the end, and only the index of the positions has a page for each list.
CREATE TABLE item (
    key      TEXT    NOT NULL,
    position INTEGER NOT NULL,
    item_id  TEXT    NOT NULL,
    stamp    BLOB    NOT NULL, -- of the append, then of the trim
    kind     INTEGER NOT NULL, -- 0 trimmed, 1 JSON, 2 binary
    json     TEXT,
    bin      BLOB,
    PRIMARY KEY (key, position),
    UNIQUE (item_id, key)
) STRICT;

CREATE INDEX item_trimmed ON item (stamp) WHERE kind = 0;
