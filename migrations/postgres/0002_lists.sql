-- One row a list, for ever: a list that was emptied or deleted goes on counting where it stopped, so that no position is
-- used twice. A delete leaves a row also where there never was a list; that one the sweeper takes.
--
-- The live items are exactly the positions from first_position up to, not including, next_position: appends take the
-- next one, trims and deletes move the first. So the length and the position of an index need no counting.
--
-- What an append changes is in no index, so it stays within its page (a heap-only tuple).
CREATE TABLE list (
    key            text    NOT NULL COLLATE "C" PRIMARY KEY, -- in byte order
    floor          bytea   NOT NULL,                         -- stamp of the last delete: items not newer than it are gone
    max_stamp      bytea   NOT NULL,                         -- newest stamp that changed the list
    first_position bigint  NOT NULL,
    next_position  bigint  NOT NULL,                         -- only ever rises
    clean_position bigint  NOT NULL,                         -- no item before it holds a payload
    removed        bigint  NOT NULL,                         -- how many items the last delete or trim took
    unused         boolean NOT NULL                          -- whether no item was ever appended
) WITH (fillfactor = 80);

CREATE INDEX list_unclean ON list (key) WHERE clean_position < first_position;
CREATE INDEX list_unused ON list (key) WHERE unused;

-- One row an item. A trimmed item keeps its id, so that an append repeated after the trim is still a repetition.
--
-- The ids that are given here rise with time. With them first, new entries of their index go to its end, whatever the list.
CREATE TABLE item (
    key      text     NOT NULL COLLATE "C",
    position bigint   NOT NULL,
    item_id  text     NOT NULL COLLATE "C",
    stamp    bytea    NOT NULL, -- of the append, then of the trim
    kind     smallint NOT NULL, -- 0 trimmed, 1 JSON, 2 binary
    json     json,
    bin      bytea,
    PRIMARY KEY (key, position),
    UNIQUE (item_id, key)
);

CREATE INDEX item_trimmed ON item (stamp) WHERE kind = 0;

-- The live JSON items for people and reports; the crate does not read it.
CREATE VIEW live_json_item AS
SELECT item.key, item.position, item.item_id, try_jsonb(item.json) AS value
FROM item
JOIN list ON list.key = item.key
WHERE item.kind = 1 AND item.position >= list.first_position AND item.position < list.next_position;
