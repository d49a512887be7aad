//! Every statement, as text. A backend fills in its schema once; from then on the text never changes, so each connection
//! prepares a statement once.
//!
//! What the texts rely on:
//!
//! - Each proves in `{proven}` that it runs in the database that is expected, and in time, by its last three arguments.
//! - `ON CONFLICT DO UPDATE` and `UPDATE` wait for a row's lock and then judge its newest version (READ COMMITTED), while the
//!   rest of a statement sees the moment it began. So whatever decides between writers stands in the `WHERE` and `SET` of
//!   the row itself: the stamp guard, the conditions, and what was there before (`replaced`, `removed`).
//! - `ON CONFLICT DO UPDATE` locks the row also where its `WHERE` refuses it.
//! - Rows are locked in the order of their keys, those of `kv` before those of `list`. A condition that does not look at the
//!   row, as `(SELECT count(*) FROM locked) >= 0`, is judged once and first: it is how one part of a statement waits for
//!   another.
//! - Arrays are unfolded in the list of what is selected, in step with each other: that keeps their order, stores no copy of
//!   them, and an array that is NULL is a column of NULLs. `unnest` after FROM copies every row twice more.
//! - What need not be computed stands in a `CASE`, or in a subquery that is run once if it is asked: the server would compute
//!   each argument of an operator first, also where one of them is NULL.

use std::sync::Arc;

use super::script::{
    CLEAN, CLEAR_KEYS, CONFLICTS, FORGET_CONFLICT, IDENTITY, ITEM_STAMPS, KEEP_CONFLICTS, KEEP_ITEMS, KEEP_VALUES,
    KNOWN_ITEMS, LIST_HEADS, LOCK_LISTS, LOCK_VALUES, MEMORY, MOVE_ITEMS, PING, PROVEN, PUT_HEADS, PUT_ITEMS,
    PUT_VALUES, RAISE_GC_FLOOR, SWEEP_EXPIRED, SWEEP_ITEMS, SWEEP_LISTS, SWEEP_LOCK, SWEEP_TOMBSTONES, UNCLEAN,
    VALUE_STAMPS,
};

/// Milliseconds since the epoch as the server's clock shows them now: after a wait for a lock, the time after it.
const NOW: &str = "floor(date_part('epoch', clock_timestamp()) * 1000)::bigint";

/// Milliseconds since the epoch when the statement arrived.
const ARRIVED: &str = "(SELECT floor(date_part('epoch', statement_timestamp()) * 1000)::bigint)";

/// Whether the row `t` of `kv` is a live value now.
const LIVE: &str = "(t.kind <> 0 AND (t.expires_at IS NULL OR t.expires_at > {now}))";

/// Whether the row `t` of `kv` was a live value when the statement arrived.
const PRESENT: &str = "(t.kind <> 0 AND (t.expires_at IS NULL OR t.expires_at > {arrived}))";

/// Whether the stamp of the row `t` of `kv` was corrupted: it has another length, or lies after the year 2200, as
/// `Stamp::is_plausible` says. It counts as the oldest, so that a write mends the row; so do the stamps of lists.
const UNREADABLE: &str = "(length(t.stamp) <> 16 OR t.stamp >= decode('0699e991a8000000', 'hex'))";

/// Whether the item `i` went with the last delete of its list `l`. A replayed delete may leave items that are older than it.
const GONE: &str = "(i.stamp <= l.floor AND length(l.floor) = 16
    AND (i.position < l.first_position OR i.position >= l.next_position))";

/// The rows of a write, and the columns they bring, in the order of the arrays. One without a value is a tombstone's.
const ROWS: &str = "
    SELECT key, stamp, {kind} AS kind, ttl, json, bin
    FROM (SELECT unnest($1::text[]) AS key, unnest($2::bytea[]) AS stamp, unnest($3::bigint[]) AS ttl,
        unnest($4::text[]) AS json, unnest($5::bytea[]) AS bin) AS r";

/// The only row of a write.
const ROW: &str = "
    SELECT key, stamp, {kind} AS kind, ttl, json, bin
    FROM (SELECT $1::text AS key, $2::bytea AS stamp, $3::bigint AS ttl, $4::text AS json, $5::bytea AS bin) AS r";

/// The number of what a row brings: 0 nothing, 1 JSON, 2 binary.
const KIND: &str =
    "CASE WHEN json IS NOT NULL THEN 1::smallint WHEN bin IS NOT NULL THEN 2::smallint ELSE 0::smallint END";

/// What begins the writing of rows, which are to follow.
const INTO_KV: &str = "
    INSERT INTO {s}.kv AS t (key, stamp, kind, expires_at, json, bin, replaced)
    SELECT key, stamp, kind, CASE WHEN ttl IS NOT NULL THEN {arrived} + 1 + ttl END, json::json, bin, false FROM";

/// What becomes of a row that is there. An expiry is counted from after the wait for its lock; a write that was applied before, and lands
/// late, ends no later for it.
const OR_REPLACE: &str = "
    ON CONFLICT (key) DO UPDATE SET
        replaced = CASE WHEN t.stamp = excluded.stamp THEN t.replaced ELSE {live} END,
        stamp = excluded.stamp,
        kind = excluded.kind,
        expires_at = CASE WHEN excluded.expires_at IS NOT NULL THEN
            least(CASE WHEN t.stamp = excluded.stamp THEN t.expires_at END, excluded.expires_at + ({now} - {arrived})) END,
        json = excluded.json,
        bin = excluded.bin";

const PUT: &str = "{into_kv} ({rows}) AS w WHERE {proven} {or_replace}
    WHERE excluded.stamp >= t.stamp OR {unreadable}
    RETURNING t.key, t.replaced";

/// A put alone: the server is through with single arguments sooner than with arrays of one.
const PUT_ONE: &str = "{into_kv} ({row}) AS w WHERE {proven} {or_replace}
    WHERE excluded.stamp >= t.stamp OR {unreadable}
    RETURNING t.key, t.replaced";

const CREATE: &str = "{into_kv} ({rows}) AS w WHERE {proven} {or_replace}
    WHERE (excluded.stamp = t.stamp AND t.kind <> 0) OR ((excluded.stamp > t.stamp OR {unreadable}) AND NOT {live})
    RETURNING t.key, false";

/// Puts and deletes together. A delete leaves a row in both tables even where there was none, because that is what an older
/// statement then runs into. Each half answers for itself, because the planner, which knows no lengths of arrays, would join
/// them row by row.
const PUT_OR_DELETE: &str = "
    WITH w AS ({rows}), v AS ({into_kv} w WHERE {proven} {or_replace}
        WHERE excluded.stamp >= t.stamp OR {unreadable}
        RETURNING t.key, t.replaced
    ), l AS (
        INSERT INTO {s}.list AS t
            (key, floor, max_stamp, first_position, next_position, clean_position, removed, unused)
        SELECT key, stamp, stamp, 0, 0, 0, 0, true
        FROM w WHERE kind = 0 AND (SELECT count(*) FROM v) >= 0
        ON CONFLICT (key) DO UPDATE SET
            removed = CASE WHEN t.floor = excluded.floor THEN t.removed ELSE t.next_position - t.first_position END,
            floor = excluded.floor,
            max_stamp = excluded.max_stamp,
            first_position = CASE WHEN t.floor = excluded.floor THEN t.first_position ELSE t.next_position END
        WHERE excluded.max_stamp >= t.max_stamp OR length(t.max_stamp) <> 16
        RETURNING t.key, t.removed
    )
    SELECT key, replaced, NULL::bigint FROM v
    UNION ALL
    SELECT key, NULL::boolean, removed FROM l";

/// The sorted locks that an update, which has no order of its own, takes first.
const LOCKED: &str = "
    WITH locked AS (SELECT 1 FROM {s}.kv WHERE {proven} AND key = ANY($1::text[]) ORDER BY key FOR NO KEY UPDATE)";

const UPDATE: &str = "{locked}
    UPDATE {s}.kv AS t SET
        replaced = true, stamp = w.stamp, kind = w.kind, json = w.json::json, bin = w.bin,
        expires_at = CASE WHEN w.ttl < 0 THEN t.expires_at WHEN w.ttl IS NOT NULL THEN {now} + 1 + w.ttl END
    FROM (SELECT key, stamp, {kind} AS kind, ttl, json, bin, expected
        FROM (SELECT unnest($1::text[]) AS key, unnest($2::bytea[]) AS stamp, unnest($3::bigint[]) AS ttl,
            unnest($4::text[]) AS json, unnest($5::bytea[]) AS bin, unnest($6::bytea[]) AS expected) AS r) AS w
    WHERE (SELECT count(*) FROM locked) >= 0 AND t.key = w.key AND ((t.stamp = w.expected AND {live}) OR (t.stamp = w.stamp AND t.kind <> 0))
    RETURNING t.key, true";

const TOUCH: &str = "{locked}
    UPDATE {s}.kv AS t SET replaced = true, stamp = w.stamp,
        expires_at = CASE WHEN w.ttl IS NOT NULL THEN {now} + 1 + w.ttl END
    FROM unnest($1::text[], $2::bytea[], $3::bigint[]) AS w (key, stamp, ttl)
    WHERE (SELECT count(*) FROM locked) >= 0 AND t.key = w.key AND (w.stamp >= t.stamp OR {unreadable}) AND {live}
    RETURNING t.key, true";

/// What stands under keys, of value and list: why a write was refused.
const STANDING: &str = "
    SELECT w.key, t.stamp, {live} AS live, l.max_stamp, l.floor
    FROM unnest($1::text[]) AS w (key)
    LEFT JOIN {s}.kv AS t ON t.key = w.key
    LEFT JOIN {s}.list AS l ON l.key = w.key
    WHERE {proven}";

const GET: &str = "
    SELECT key, stamp, kind, expires_at, json, bin
    FROM {s}.kv AS t WHERE {proven} AND key = ANY($1::text[]) AND {present}";

const EXISTS: &str = "
    SELECT key FROM {s}.kv AS t WHERE {proven} AND key = ANY($1::text[]) AND {present}
    UNION
    SELECT key FROM {s}.list WHERE key = ANY($1::text[]) AND first_position < next_position";

const LIST: &str = "
    SELECT key FROM (
        (SELECT key FROM {s}.kv AS t WHERE {under} AND {present} ORDER BY key LIMIT $4)
        UNION
        (SELECT key FROM {s}.list AS t WHERE {under} AND first_position < next_position ORDER BY key LIMIT $4)
    ) AS u WHERE {proven} ORDER BY key LIMIT $4";

/// The keys `t` of a prefix after a cursor (`''` begins) and before the prefix's upper bound.
const UNDER: &str = "t.key >= $1 AND t.key > $2 AND t.key < $3";

/// The same where there is no upper bound; `$3` is still bound.
const UNDER_UNBOUNDED: &str = "t.key >= $1 AND t.key > $2 AND $3::text IS NULL";

const COUNT: &str = "
    SELECT (SELECT count(*) FROM {s}.kv AS t WHERE {under} AND {present})
        + (SELECT count(*) FROM {s}.list AS t WHERE {under} AND first_position < next_position
            AND NOT EXISTS (SELECT 1 FROM {s}.kv AS v
                WHERE v.key = t.key AND v.kind <> 0 AND (v.expires_at IS NULL OR v.expires_at > {arrived})))
    WHERE {proven}";

/// A page of what a clear removes, locked: expired values too, so that their keys end as the others do.
const CLEAR_VALUES: &str = "
    SELECT t.key, t.stamp FROM {s}.kv AS t WHERE {proven} AND {under} AND t.kind <> 0 ORDER BY t.key LIMIT $4 FOR NO KEY UPDATE";

const CLEAR_LISTS: &str = "
    SELECT t.key, t.max_stamp FROM {s}.list AS t
    WHERE {proven} AND {under} AND t.first_position < t.next_position ORDER BY t.key LIMIT $4 FOR NO KEY UPDATE";

/// Grows lists, which bring the columns key, stamp and count, in the order of their keys, and so gives out the positions, unless
/// a delete was newer; what else must be newer than the delete follows. The row of a list that is made first brings what its
/// first items take.
const OR_GROW: &str = "
    ON CONFLICT (key) DO UPDATE SET
        floor = CASE WHEN length(t.floor) = 16 THEN t.floor ELSE excluded.floor END,
        max_stamp = greatest(CASE WHEN length(t.max_stamp) = 16 THEN t.max_stamp END, excluded.max_stamp),
        next_position = t.next_position + excluded.next_position,
        unused = false
    WHERE length(t.floor) <> 16 OR excluded.max_stamp > t.floor";

/// What begins the growing of lists.
const INTO_LIST: &str = "
    INSERT INTO {s}.list AS t
        (key, floor, max_stamp, first_position, next_position, clean_position, removed, unused)
    SELECT key, decode('00000000000000000000000000000000', 'hex'), stamp, 0, count, 0, 0, false FROM";

/// Appends items whose ids are new, and answers for each list its next position after them: `$1` to `$3` are the lists, sorted,
/// `$4` to `$10` the items, with the number of their list and how far before its end they go, `$11` what the last delete of each
/// list must be older than. If one of the ids is known it does nothing. One that comes meanwhile collides with the unique id and fails the statement as a whole.
///
/// The positions are looked up by the list's number. Where a list did not grow the numbers are not those of the arrays, and the
/// keys must be compared one by one.
const APPEND_NEW: &str = "
    WITH known AS (
        SELECT 1 FROM (SELECT unnest($4::text[]) AS key, unnest($7::text[]) AS item_id) AS w
        CROSS JOIN LATERAL (
            SELECT 1 FROM {s}.item AS t WHERE t.key = w.key AND t.item_id = w.item_id LIMIT 1
        ) AS i
        WHERE {proven}
        LIMIT 1
    ), grown AS ({into_list}
        (SELECT unnest($1::text[]) AS key, unnest($2::bytea[]) AS stamp, unnest($3::bigint[]) AS count) AS w
        WHERE NOT EXISTS (SELECT FROM known) {or_grow} AND $11 > t.floor
        RETURNING t.key, t.next_position
    ), added AS (
        INSERT INTO {s}.item AS t (key, position, item_id, stamp, kind, json, bin)
        SELECT key, (ARRAY(SELECT next_position FROM grown ORDER BY key))[list] - back,
            item_id, stamp, {kind}, json::json, bin
        FROM ({items}) AS w WHERE (SELECT count(*) FROM grown) = cardinality($1::text[])
        UNION ALL
        SELECT w.key, g.next_position - back, item_id, stamp, {kind}, json::json, bin
        FROM ({items}) AS w JOIN grown AS g ON g.key = w.key
        WHERE (SELECT count(*) FROM grown) < cardinality($1::text[])
    )
    SELECT key, next_position FROM grown";

/// The items of [`APPEND_NEW`].
const ITEMS: &str = "
    SELECT unnest($4::text[]) AS key, unnest($5::integer[]) AS list, unnest($6::bigint[]) AS back,
        unnest($7::text[]) AS item_id, unnest($8::bytea[]) AS stamp, unnest($9::text[]) AS json, unnest($10::bytea[]) AS bin";

/// Appends one item, whose id collides if it is known.
const APPEND_ONE: &str = "
    WITH grown AS ({into_list} (SELECT $1::text AS key, $2::bytea AS stamp, 1 AS count) AS w {or_grow}
        RETURNING t.key, t.next_position
    ), added AS (
        INSERT INTO {s}.item AS t (key, position, item_id, stamp, kind, json, bin)
        SELECT key, next_position - 1, $3, $2, {kind}, json::json, bin
        FROM grown, (SELECT $4::text AS json, $5::bytea AS bin) AS w
    )
    SELECT key, next_position FROM grown WHERE {proven}";

/// Appends items of which some may be there. `known` are those that are, as far as the statement's moment shows; one that came
/// later collides with the unique id and fails the statement as a whole, to be sent again.
const APPEND: &str = "
    WITH w AS (
        SELECT key COLLATE \"C\" AS key, item_id, stamp, {kind} AS kind, json, bin, own, n
        FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bytea[], $7::bytea[])
        WITH ORDINALITY AS w (key, item_id, stamp, json, bin, own, n)
    ), known AS (
        SELECT w.n, w.key, w.item_id, i.position
        FROM w
        CROSS JOIN LATERAL (
            SELECT position, stamp FROM {s}.item AS t WHERE t.key = w.key AND t.item_id = w.item_id LIMIT 1
        ) AS i
        JOIN {s}.list AS l ON l.key = w.key AND NOT {gone}
    ), fresh AS (
        SELECT w.*, row_number() OVER (PARTITION BY key ORDER BY n) AS nth, count(*) OVER (PARTITION BY key) AS count
        FROM w WHERE n NOT IN (SELECT n FROM known)
    ), grown AS ({into_list} (SELECT key, stamp, count FROM fresh WHERE nth = count ORDER BY n) AS w {or_grow} AND $6 > t.floor
        RETURNING t.key, t.next_position
    ), added AS (
        INSERT INTO {s}.item AS t (key, position, item_id, stamp, kind, json, bin)
        SELECT f.key, g.next_position - f.count + f.nth - 1, f.item_id, f.own, f.kind, f.json::json, f.bin
        FROM fresh AS f JOIN grown AS g ON g.key = f.key
        RETURNING t.key, t.item_id, t.position
    )
    SELECT key, item_id, position, true FROM known WHERE {proven}
    UNION ALL
    SELECT key, item_id, position, false FROM added";

/// Removes what a deleted list left: items with these ids, and items where the next ones go, as after the row of the list was
/// lost. Answers a row for each.
const FORGET: &str = "
    WITH beyond AS (
        DELETE FROM {s}.item AS i USING {s}.list AS l
        WHERE l.key = ANY($1::text[]) AND i.key = l.key AND i.position >= l.next_position AND {gone}
        RETURNING 1
    ), known AS (
        DELETE FROM {s}.item AS i
        USING unnest($1::text[], $2::text[]) AS w (key, item_id), {s}.list AS l
        WHERE i.key = w.key AND i.item_id = w.item_id AND l.key = i.key AND {gone}
        RETURNING 1
    )
    SELECT 1 FROM beyond WHERE {proven} UNION ALL SELECT 1 FROM known";

/// Indices become positions: live items stand side by side. Each row says how many there should be; if there are none, a row
/// without an item does.
const RANGE: &str = "
    WITH l AS (
        SELECT first_position AS first, next_position - first_position AS length FROM {s}.list WHERE {proven} AND key = $1
    ), bounds AS (
        SELECT first + CASE WHEN $2 < 0 THEN greatest(length + $2, 0) ELSE least($2, length) END AS low,
            first + CASE WHEN $3 < 0 THEN length + $3 ELSE least($3, length - 1) END AS high
        FROM l
    )
    SELECT i.position, i.item_id, i.kind, i.json, i.bin, CASE WHEN high < low THEN 0 ELSE high - low + 1 END
    FROM bounds LEFT JOIN {s}.item AS i ON i.key = $1 AND i.position >= bounds.low AND i.position <= bounds.high
    ORDER BY i.position";

const LENGTH: &str = "SELECT next_position - first_position FROM {s}.list WHERE {proven} AND key = $1";

const ENDS: &str = "SELECT first_position, next_position, max_stamp FROM {s}.list WHERE {proven} AND key = $1";

/// Trims below a fixed position, so that one that lands late takes nothing that came after it.
const TRIM: &str = "
    UPDATE {s}.list SET removed = $2 - first_position, first_position = $2,
        max_stamp = greatest(CASE WHEN length(max_stamp) = 16 THEN max_stamp END, $3)
    WHERE {proven} AND key = $1 AND first_position < $2 AND next_position >= $2
    RETURNING removed";

/// The text of one statement.
pub(super) type Text = Arc<str>;

macro_rules! statements {
    ($($name:ident => $template:ident;)*) => {
        /// The statements of one backend.
        #[derive(Debug)]
        pub(super) struct Sql {
            $(pub(super) $name: Text,)*
            /// The listing of a prefix without an upper bound, and its kin.
            pub(super) unbounded: Scans,
            /// The listing of a prefix with an upper bound, and its kin.
            pub(super) bounded: Scans,
        }

        impl Sql {
            /// Fills in the schema, which is quoted already.
            pub(super) fn new(schema: &str) -> Self {
                Self {
                    $($name: render($template, schema),)*
                    unbounded: Scans::new(UNDER_UNBOUNDED, schema),
                    bounded: Scans::new(UNDER, schema),
                }
            }
        }
    };
}

statements! {
    put => PUT;
    put_one => PUT_ONE;
    create => CREATE;
    put_or_delete => PUT_OR_DELETE;
    update => UPDATE;
    touch => TOUCH;
    standing => STANDING;
    lock_values => LOCK_VALUES;
    lock_lists => LOCK_LISTS;
    get => GET;
    exists => EXISTS;
    append => APPEND;
    append_new => APPEND_NEW;
    append_one => APPEND_ONE;
    forget => FORGET;
    range => RANGE;
    length => LENGTH;
    ends => ENDS;
    trim => TRIM;
    clean => CLEAN;
    ping => PING;
    identity => IDENTITY;
    memory => MEMORY;
    value_stamps => VALUE_STAMPS;
    list_heads => LIST_HEADS;
    known_items => KNOWN_ITEMS;
    item_stamps => ITEM_STAMPS;
    put_values => PUT_VALUES;
    put_heads => PUT_HEADS;
    move_items => MOVE_ITEMS;
    put_items => PUT_ITEMS;
    keep_conflicts => KEEP_CONFLICTS;
    keep_values => KEEP_VALUES;
    keep_items => KEEP_ITEMS;
    conflicts => CONFLICTS;
    forget_conflict => FORGET_CONFLICT;
    sweep_lock => SWEEP_LOCK;
    raise_gc_floor => RAISE_GC_FLOOR;
    sweep_tombstones => SWEEP_TOMBSTONES;
    sweep_expired => SWEEP_EXPIRED;
    sweep_lists => SWEEP_LISTS;
    sweep_items => SWEEP_ITEMS;
    unclean => UNCLEAN;
}

/// The statements over the keys of a prefix.
#[derive(Debug)]
pub(super) struct Scans {
    pub(super) list: Text,
    pub(super) count: Text,
    pub(super) clear_values: Text,
    pub(super) clear_lists: Text,
    pub(super) clear_keys: Text,
}

impl Scans {
    fn new(under: &str, schema: &str) -> Self {
        let render = |template: &str| render(&template.replace("{under}", under), schema);
        Self {
            list: render(LIST),
            count: render(COUNT),
            clear_values: render(CLEAR_VALUES),
            clear_lists: render(CLEAR_LISTS),
            clear_keys: render(CLEAR_KEYS),
        }
    }
}

/// The parts that texts are made of. What is in another comes after it.
const PARTS: [(&str, &str); 16] = [
    ("{into_kv}", INTO_KV),
    ("{or_replace}", OR_REPLACE),
    ("{into_list}", INTO_LIST),
    ("{or_grow}", OR_GROW),
    ("{rows}", ROWS),
    ("{row}", ROW),
    ("{items}", ITEMS),
    ("{kind}", KIND),
    ("{locked}", LOCKED),
    ("{live}", LIVE),
    ("{present}", PRESENT),
    ("{unreadable}", UNREADABLE),
    ("{gone}", GONE),
    ("{proven}", PROVEN),
    ("{now}", NOW),
    ("{arrived}", ARRIVED),
];

/// Fills in the parts, then the schema: last, so that its name is never taken for a part.
fn render(template: &str, schema: &str) -> Text {
    let text = PARTS.into_iter().fold(template.to_owned(), |text, (name, part)| text.replace(name, part));
    let arguments = arguments(&text);
    let text = text.replace("{identity}", &format!("${}", arguments + 1));
    let text = text.replace("{canary}", &format!("${}", arguments + 2));
    let text = text.replace("{until}", &format!("${}", arguments + 3));
    Text::from(text.replace("{s}", schema))
}

/// How many arguments a text takes.
fn arguments(text: &str) -> u32 {
    let number = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    text.split('$').skip(1).filter_map(number).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_filled_in() {
        let sql = format!("{:?}", Sql::new("\"a\""));
        let names = PARTS.into_iter().map(|(name, _)| name);
        for part in names.chain(["{identity}", "{canary}", "{until}", "{under}", "{s}"]) {
            assert!(!sql.contains(part), "{part}");
        }
    }

    #[test]
    fn every_statement_but_one_proves_where_it_runs() {
        let sql = format!("{:?}", Sql::new("\"a\""));
        // Each statement is a text of its own in quotation marks, as are the schemas in them.
        let texts = sql.replace("\\\"", "").split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        assert!(texts.len() > 40, "{}", texts.len());
        let without: Vec<_> = texts.iter().filter(|text| !text.contains("a.refuse_identity()")).collect();
        assert_eq!(without, ["SELECT identity, canary FROM a.meta"]);
    }

    #[test]
    fn what_is_expected_comes_after_the_other_arguments() {
        let sql = Sql::new("a");
        assert!(sql.ping.contains("$1::bytea") && sql.ping.contains("$2::bigint"));
        assert!(sql.append_new.contains("identity = $12::bytea") && sql.append_new.contains("canary >= $13::bigint"));
        assert!(sql.append_new.contains("$14::bigint <"));
    }

    #[test]
    fn a_schema_named_like_a_part_is_left_alone() {
        assert!(Sql::new("\"{now}\"").length.contains("\"{now}\".list"));
    }
}
