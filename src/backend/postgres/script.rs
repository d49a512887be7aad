//! The statements that are no caller's own operation: locks, the replay, the database itself, and what cleans up.
//! What they rely on is said in `sql`.

/// Whether the statement runs in the expected database, if one is, and in time: judged once and first, and the statement fails where it
/// does not. Nobody knows how often a condition with a function that may do anything is judged, unless it is a subquery.
pub(super) const PROVEN: &str = "(SELECT CASE
        WHEN {identity}::bytea IS NULL THEN true
        WHEN EXISTS (SELECT FROM {s}.meta WHERE id = 1 AND identity = {identity}::bytea AND canary >= {canary}::bigint)
            AND NOT pg_is_in_recovery()
            THEN CASE WHEN {until}::bigint < {arrived} THEN {s}.refuse_late() ELSE true END
        ELSE {s}.refuse_identity() END)";

pub(super) const PING: &str = "
    UPDATE {s}.meta SET canary = canary + 1 WHERE id = 1 AND {proven}
    RETURNING identity, canary, current_setting('server_version'), {now}";

/// The one statement that any database answers.
pub(super) const IDENTITY: &str = "SELECT identity, canary FROM {s}.meta";

/// Locks values for a transaction. Where there is none, an oldest tombstone takes its place until the end.
pub(super) const LOCK_VALUES: &str = "
    INSERT INTO {s}.kv AS t (key, stamp, kind, replaced)
    SELECT key, decode(repeat('00', 16), 'hex'), 0, false
    FROM unnest($1::text[]) WITH ORDINALITY AS w (key, n) WHERE {proven} ORDER BY n
    ON CONFLICT (key) DO UPDATE SET stamp = t.stamp WHERE false";

/// Locks lists for a transaction, as [`LOCK_VALUES`] does values.
pub(super) const LOCK_LISTS: &str = "
    INSERT INTO {s}.list AS t
        (key, floor, max_stamp, first_position, next_position, clean_position, removed, unused)
    SELECT key, zero, zero, 0, 0, 0, 0, true
    FROM unnest($1::text[]) WITH ORDINALITY AS w (key, n), decode(repeat('00', 16), 'hex') AS zero
    WHERE {proven} ORDER BY n
    ON CONFLICT (key) DO UPDATE SET floor = t.floor WHERE false";

/// From where on deletes are remembered, and the server's time.
pub(super) const MEMORY: &str = "SELECT gc_floor, {now} FROM {s}.meta WHERE id = 1 AND {proven}";

pub(super) const VALUE_STAMPS: &str = "SELECT key, stamp FROM {s}.kv WHERE {proven} AND key = ANY($1::text[])";

pub(super) const LIST_HEADS: &str = "
    SELECT key, floor, max_stamp, first_position, next_position FROM {s}.list WHERE {proven} AND key = ANY($1::text[])";

/// The items that have these ids, and which of the ids they have.
pub(super) const KNOWN_ITEMS: &str = "
    SELECT w.n, i.position, i.stamp
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w (key, item_id, n)
    CROSS JOIN LATERAL (
        SELECT position, stamp FROM {s}.item AS t WHERE t.key = w.key AND t.item_id = w.item_id LIMIT 1
    ) AS i
    WHERE {proven}";

/// The live items of lists.
pub(super) const ITEM_STAMPS: &str = "
    SELECT i.key, i.position, i.stamp FROM {s}.list AS l
    JOIN {s}.item AS i ON i.key = l.key AND i.position >= l.first_position AND i.position < l.next_position
    WHERE {proven} AND l.key = ANY($1::text[]) ORDER BY i.key, i.position";

pub(super) const PUT_VALUES: &str = "
    UPDATE {s}.kv AS t SET
        replaced = {live}, stamp = w.stamp, kind = w.kind, expires_at = w.expires_at, json = w.json::json, bin = w.bin
    FROM (SELECT key, stamp, {kind} AS kind, expires_at, json, bin
        FROM (SELECT unnest($1::text[]) AS key, unnest($2::bytea[]) AS stamp, unnest($3::bigint[]) AS expires_at,
            unnest($4::text[]) AS json, unnest($5::bytea[]) AS bin) AS r) AS w
    WHERE {proven} AND t.key = w.key
    RETURNING 1";

pub(super) const PUT_HEADS: &str = "
    UPDATE {s}.list AS t SET
        floor = w.floor, max_stamp = w.max_stamp, first_position = w.first, next_position = w.next,
        removed = coalesce(w.removed, t.removed), unused = t.unused AND w.unused
    FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[], $7::boolean[])
        AS w (key, floor, max_stamp, first, next, removed, unused)
    WHERE {proven} AND t.key = w.key
    RETURNING 1";

pub(super) const MOVE_ITEMS: &str = "
    UPDATE {s}.item AS t SET position = w.target
    FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS w (key, source, target)
    WHERE {proven} AND t.key = w.key AND t.position = w.source
    RETURNING 1";

pub(super) const PUT_ITEMS: &str = "
    INSERT INTO {s}.item (key, position, item_id, stamp, kind, json, bin)
    SELECT key, position, item_id, stamp, {kind}, json::json, bin
    FROM (SELECT unnest($1::text[]) AS key, unnest($2::bytea[]) AS stamp, unnest($3::bigint[]) AS position,
        unnest($4::text[]) AS item_id, unnest($5::text[]) AS json, unnest($6::bytea[]) AS bin) AS w
    WHERE {proven}";

/// One that is kept already stays as it is.
pub(super) const KEEP_CONFLICTS: &str = "
    INSERT INTO {s}.conflict (stamp, key, operation, item_id, kind, expires_at, json, bin, winner, at)
    SELECT stamp, key, operation, item_id, {kind}, expires_at, json::json, bin, winner, $9
    FROM (SELECT unnest($1::text[]) AS key, unnest($2::bytea[]) AS stamp, unnest($3::text[]) AS operation,
        unnest($4::text[]) AS item_id, unnest($5::bigint[]) AS expires_at, unnest($6::bytea[]) AS winner,
        unnest($7::text[]) AS json, unnest($8::bytea[]) AS bin) AS w
    WHERE {proven}
    ON CONFLICT DO NOTHING";

/// Keeps values before they are overwritten, as they are stored. Answers how many were found, and how many of them nobody can
/// read. The server copies them one by one.
pub(super) const KEEP_VALUES: &str = "
    WITH found AS (
        SELECT w.stamp, w.key, w.winner, t.kind, t.expires_at, t.json, t.bin
        FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS w (key, stamp, winner)
        CROSS JOIN LATERAL (
            SELECT kind, expires_at, json, bin FROM {s}.kv AS v WHERE v.key = w.key LIMIT 1
        ) AS t
        WHERE {proven}
    ), kept AS (
        INSERT INTO {s}.conflict (stamp, key, operation, kind, expires_at, json, bin, winner, at)
        SELECT stamp, key, CASE kind WHEN 0 THEN 'delete' ELSE 'put' END, kind, expires_at, json, bin, winner, $4
        FROM found
        ON CONFLICT DO NOTHING
    )
    SELECT count(*), count(*) FILTER (WHERE kind <> 0 AND (kind <> {kind} OR num_nulls(json, bin) <> 1)) FROM found";

/// Keeps items, as [`KEEP_VALUES`] does values; `$5` is where they are stored. An id that is none cannot be read either.
pub(super) const KEEP_ITEMS: &str = "
    WITH found AS (
        SELECT w.stamp, w.key, w.winner, t.item_id, t.kind, t.json, t.bin
        FROM unnest($1::text[], $2::bytea[], $3::bytea[], $5::bigint[]) AS w (key, stamp, winner, position)
        CROSS JOIN LATERAL (
            SELECT item_id, kind, json, bin FROM {s}.item AS i WHERE i.key = w.key AND i.position = w.position LIMIT 1
        ) AS t
        WHERE {proven}
    ), kept AS (
        INSERT INTO {s}.conflict (stamp, key, operation, item_id, kind, json, bin, winner, at)
        SELECT stamp, key, 'append', item_id, kind, json, bin, winner, $4
        FROM found
        ON CONFLICT DO NOTHING
    )
    SELECT count(*), count(*) FILTER (WHERE kind <> {kind} OR num_nulls(json, bin) <> 1
        OR octet_length(item_id) NOT BETWEEN 1 AND 256 OR item_id ~ '[[:cntrl:]]') FROM found";

pub(super) const CONFLICTS: &str = "
    SELECT stamp, key, operation, item_id, expires_at, kind, json, bin, winner, at FROM {s}.conflict
    WHERE {proven} AND (stamp, key) > ($1::bytea, $2::text) ORDER BY stamp, key LIMIT $3";

pub(super) const FORGET_CONFLICT: &str =
    "DELETE FROM {s}.conflict WHERE {proven} AND stamp = $1 AND key = $2 RETURNING 1";

/// A page of the keys that a replayed clear looks at: expired values too, so that their keys end as the others do.
pub(super) const CLEAR_KEYS: &str = "
    SELECT key FROM (
        (SELECT key FROM {s}.kv AS t WHERE {under} AND t.kind <> 0 ORDER BY key LIMIT $4)
        UNION
        (SELECT key FROM {s}.list AS t WHERE {under} AND first_position < next_position ORDER BY key LIMIT $4)
    ) AS u WHERE {proven} ORDER BY key LIMIT $4";

/// Whether this process sweeps for the length of its transaction, and the server's time.
pub(super) const SWEEP_LOCK: &str = "
    SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)), {now} WHERE {proven}";

/// By itself: whoever stops after it keeps nobody from the row, which every probe writes to.
pub(super) const RAISE_GC_FLOOR: &str =
    "UPDATE {s}.meta SET gc_floor = $1 WHERE {proven} AND gc_floor < $2 RETURNING 1";

pub(super) const SWEEP_TOMBSTONES: &str = "
    DELETE FROM {s}.kv WHERE {proven} AND kind = 0 AND stamp < $1 AND key = ANY(ARRAY(
        SELECT key FROM {s}.kv WHERE kind = 0 AND stamp < $1 ORDER BY key LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1";

pub(super) const SWEEP_EXPIRED: &str = "
    DELETE FROM {s}.kv WHERE {proven} AND expires_at < {now} AND stamp < $1 AND key = ANY(ARRAY(
        SELECT key FROM {s}.kv WHERE expires_at < {now} AND stamp < $1 ORDER BY expires_at LIMIT $2
        FOR UPDATE SKIP LOCKED))
    RETURNING 1";

pub(super) const SWEEP_LISTS: &str = "
    DELETE FROM {s}.list WHERE {proven} AND unused AND max_stamp < $1 AND key = ANY(ARRAY(
        SELECT key FROM {s}.list WHERE unused AND max_stamp < $1 ORDER BY key LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1";

pub(super) const SWEEP_ITEMS: &str = "
    DELETE FROM {s}.item WHERE {proven} AND kind = 0 AND stamp < $1 AND ctid = ANY(ARRAY(
        SELECT ctid FROM {s}.item WHERE kind = 0 AND stamp < $1 ORDER BY stamp LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING 1";

pub(super) const UNCLEAN: &str = "
    SELECT key FROM {s}.list WHERE {proven} AND clean_position < first_position ORDER BY key LIMIT $1";

/// Takes the payload of items before the first position, at most `$2` positions a list: those of a deleted list go, those that
/// were trimmed keep their id. All reads are of the statement's one moment, and so is the position it moves to: every item
/// before it was to be seen.
pub(super) const CLEAN: &str = "
    WITH l AS (
        SELECT key, floor, max_stamp, first_position, next_position, clean_position AS low, least(first_position, clean_position + $2) AS high
        FROM {s}.list WHERE key = ANY($1::text[]) AND clean_position < first_position
    ), gone AS (
        DELETE FROM {s}.item AS i USING l
        WHERE i.key = l.key AND i.position >= l.low AND i.position < l.high AND {gone}
    ), trimmed AS (
        UPDATE {s}.item AS i SET kind = 0, json = NULL, bin = NULL, stamp = l.max_stamp FROM l
        WHERE i.key = l.key AND i.position >= l.low AND i.position < l.high AND NOT {gone} AND i.kind <> 0
    )
    UPDATE {s}.list AS t SET clean_position = l.high FROM l
    WHERE {proven} AND t.key = l.key AND t.clean_position = l.low";
