//! The cases of bad luck that a chain must have an answer to, and the tests that hold each.

use crate::guards::{Test, exists};

const ACCEPTED: &str = "tests/chain/accepted.rs";
const AMBIGUITY: &str = "tests/chain/ambiguity.rs";
const BAD_LUCK: &str = "tests/chain/bad_luck.rs";
const BREAKER: &str = "src/chain/breaker.rs";
const CLI_JOURNAL: &str = "tests/cli/journal.rs";
const CLI_RECONCILE: &str = "tests/cli/reconcile.rs";
const CLOCKS: &str = "tests/chain/clocks.rs";
const CONFIG: &str = "tests/config_chain.rs";
const DEGRADED: &str = "tests/chain/degraded.rs";
const DISK: &str = "src/chain/journal/tests/disk.rs";
const FOLDER: &str = "src/chain/journal/tests/folder.rs";
const FOREIGN: &str = "tests/chain/foreign.rs";
const FULL_JOURNAL: &str = "tests/disks/journal.rs";
const FULL_PRIMARY: &str = "tests/disks/primary.rs";
const LATE: &str = "tests/postgres_chain/late.rs";
const LATE_IN_MEMORY: &str = "tests/chain/late.rs";
const LIVES: &str = "tests/chain/lives.rs";
const MIGRATIONS: &str = "tests/postgres_chain/migrations.rs";
const MOVED: &str = "tests/chain/moved.rs";
const OTHERS: &str = "tests/chain/others.rs";
const OUTAGES: &str = "tests/postgres_chain/outages.rs";
const PARKED: &str = "tests/chain/parked.rs";
const POOLER: &str = "tests/postgres_chain/pooler.rs";
const RECONCILING: &str = "tests/chain/reconciling.rs";
const REPOINTED: &str = "tests/postgres_chain/repointed.rs";
const RETURNING_CACHE: &str = "tests/cache_chain/returning.rs";
const RETURNS: &str = "tests/postgres_chain/returns.rs";
const SQLITE_REPLAY: &str = "tests/sqlite_replay.rs";
const STOPPED: &str = "tests/postgres_chain/stopped.rs";
const TAKEN_OVER: &str = "tests/chain/taken_over.rs";

/// What may befall the process and its machine.
const OF_THE_PROCESS: &[(&str, &[Test])] = &[
    (
        "it is stopped or crashes while degraded",
        &[
            (STOPPED, "a_process_that_is_stopped_while_degraded_loses_nothing_that_it_acknowledged"),
            (BAD_LUCK, "a_process_that_is_stopped_while_degraded_leaves_all_it_owes"),
            (OUTAGES, "what_is_owed_outlives_the_process"),
        ],
    ),
    (
        "another process adopts what it left",
        &[
            (FOLDER, "what_the_dead_have_left_is_taken_over_in_its_order_and_their_files_go"),
            (FOLDER, "a_crash_after_the_copy_does_not_copy_it_twice"),
            (LIVES, "what_a_process_takes_over_it_replaces_without_a_conflict"),
            (TAKEN_OVER, "whoever_begins_with_it_is_told_what_is_newer_at_the_primary"),
            (TAKEN_OVER, "it_hides_nothing_newer_from_readers"),
        ],
    ),
    (
        "two processes share a journal folder",
        &[
            (BAD_LUCK, "the_journal_of_a_living_process_is_its_own"),
            (CLI_JOURNAL, "what_a_living_process_has_put_aside_is_its_own_and_what_helps_is_told"),
        ],
    ),
    (
        "two reconcilers of one journal",
        &[
            (LIVES, "of_many_that_start_at_once_one_takes_a_journal_over_and_replays_it_once"),
            (LIVES, "a_copy_of_a_journal_that_is_replayed_as_well_has_no_effect_any_more"),
            (CLI_RECONCILE, "several_at_once_replay_what_the_dead_owed_once"),
        ],
    ),
    (
        "two processes are degraded on one key",
        &[(LIVES, "of_two_processes_that_died_degraded_the_newer_write_wins_and_the_other_is_kept")],
    ),
    (
        "one process is cut off and others are not",
        &[
            (OUTAGES, "what_others_write_meanwhile_is_in_conflict_and_kept"),
            (OTHERS, "items_of_several_writers_are_all_there_once_and_in_their_order"),
        ],
    ),
    (
        "the clock jumps, also across a restart",
        &[
            (CLOCKS, "writes_keep_their_order_though_the_clock_jumps_while_they_are_made"),
            (CLOCKS, "a_process_that_begins_after_the_clock_jumped_back_gives_no_older_stamps"),
            (CLOCKS, "a_process_that_begins_after_a_crash_gives_no_older_stamps_though_the_clock_had_just_jumped"),
            (CLOCKS, "a_process_that_begins_after_a_crash_gives_no_older_stamps_though_another_ones_clock_was_ahead"),
            (CLOCKS, "a_reserve_that_was_promised_is_not_taken_back_when_the_clock_goes_back"),
            (CLOCKS, "the_reserve_of_a_dead_process_holds_for_its_successor_though_another_one_took_its_journal_over"),
            (CLOCKS, "what_another_process_took_over_does_not_land_over_what_is_written_since"),
            (LIVES, "a_clock_that_went_back_while_nothing_ran_gives_no_older_stamps"),
        ],
    ),
    (
        "a caller drops its future in the middle",
        &[
            (AMBIGUITY, "a_caller_that_goes_away_in_the_middle_leaves_nothing_behind"),
            (LATE_IN_MEMORY, "a_write_whose_caller_went_away_changes_nothing_newer"),
        ],
    ),
    ("a chain names the same database twice", &[(CONFIG, "a_database_cannot_stand_behind_itself")]),
];

/// What may befall the journal.
const OF_THE_JOURNAL: &[(&str, &[Test])] = &[
    (
        "it is corrupt, or of a newer version",
        &[
            (BAD_LUCK, "files_that_cannot_be_read_are_left_and_told_and_nothing_else_suffers"),
            (FOLDER, "what_cannot_be_read_is_left_as_it_is_and_told_once"),
        ],
    ),
    ("it is locked by another process", &[(FOLDER, "each_process_has_a_file_of_its_own")]),
    (
        "it is full",
        &[
            (DEGRADED, "a_full_journal_takes_nothing_and_empties_itself"),
            (FOREIGN, "a_journal_that_is_full_while_fenced_says_what_helps"),
        ],
    ),
    (
        "its disk is full",
        &[
            (FULL_JOURNAL, "a_full_disk_refuses_what_is_new_and_lets_go_what_it_holds"),
            (FULL_JOURNAL, "a_process_that_starts_on_a_full_disk_brings_the_primary_what_it_is_owed"),
            (FULL_JOURNAL, "a_first_start_on_a_full_disk_is_refused_until_there_is_room"),
            (DISK, "a_full_disk_refuses_operations_and_lets_what_was_replayed_be_removed"),
        ],
    ),
    ("its disk fails", &[(DISK, "a_disk_that_failed_takes_no_more_operations_but_gives_back_what_it_holds")]),
    (
        "it is read-only",
        &[
            (FULL_JOURNAL, "a_folder_that_cannot_be_written_is_told_with_what_helps"),
            (FULL_JOURNAL, "a_journal_that_cannot_be_written_is_left_and_told"),
            (BAD_LUCK, "a_folder_that_cannot_be_used_is_told_when_the_chain_is_opened"),
        ],
    ),
    (
        "the URL is changed with operations pending",
        &[
            (MOVED, "another_database_at_the_new_address_is_fenced_off_and_the_reason_is_told"),
            (MOVED, "the_same_database_at_the_new_address_is_brought_what_it_is_owed"),
            (ACCEPTED, "what_is_owed_to_another_address_is_taken_over_when_it_is_accepted"),
        ],
    ),
];

/// What may befall a call during an outage.
const OF_A_CALL: &[(&str, &[Test])] = &[
    (
        "the reply of a COMMIT is lost",
        &[
            (OUTAGES, "a_write_whose_reply_is_lost_has_effect_once"),
            (OUTAGES, "a_transaction_whose_commit_is_not_heard_of_is_looked_up"),
        ],
    ),
    (
        "a statement lands late, after newer writes, deletes, trims and clears",
        &[
            (LATE, "a_set_that_lands_late_changes_nothing"),
            (LATE, "a_delete_that_lands_late_removes_nothing_newer"),
            (LATE, "an_append_that_lands_late_is_there_once"),
            (LATE, "a_clear_that_lands_late_removes_nothing_newer"),
            (LATE, "what_the_network_held_back_for_longer_than_its_time_replaces_nothing_unseen"),
            (LATE, "what_is_never_sent_again_changes_nothing_newer_when_it_lands"),
            (LATE, "what_was_replayed_changes_nothing_of_others_when_it_lands"),
        ],
    ),
    ("an append during the outage", &[(DEGRADED, "lists_are_appended_to_and_known_only_after_a_delete")]),
    (
        "a clear during the outage",
        &[(DEGRADED, "a_clear_covers_its_prefix"), (AMBIGUITY, "a_clear_whose_reply_was_lost_is_kept")],
    ),
    (
        "an entry expires during the outage",
        &[(DEGRADED, "an_entry_that_expires_while_it_is_owed_revives_nothing_older")],
    ),
    ("a batch of several keys is partly owed", &[(DEGRADED, "a_batch_is_answered_key_by_key")]),
    (
        "a poison operation, and what follows it",
        &[
            (PARKED, "items_wait_behind_one_that_is_not_taken_and_nothing_else_does"),
            (PARKED, "a_value_that_is_not_taken_blocks_its_key_alone"),
        ],
    ),
];

/// What may befall the primary.
const OF_THE_PRIMARY: &[(&str, &[Test])] = &[
    ("it keeps coming and going", &[(RECONCILING, "a_flapping_primary_loses_nothing")]),
    (
        "it is slow, or hangs, and is not dead",
        &[
            (DEGRADED, "a_frozen_primary_costs_no_caller_its_deadline"),
            (OUTAGES, "what_is_written_while_the_server_is_frozen_is_not_undone_when_it_thaws"),
            (OUTAGES, "what_is_owed_comes_home_over_a_line_that_is_too_slow_for_the_pace"),
        ],
    ),
    ("overload looks like an outage", &[(BREAKER, "silence_opens_it_by_rate_and_answers_never_do")]),
    ("a herd at its recovery", &[(RECONCILING, "a_writer_that_never_rests_does_not_keep_the_replay_from_ending")]),
    (
        "the replay is interrupted, or cannot be made",
        &[
            (RECONCILING, "a_replay_that_breaks_off_goes_on_where_it_was"),
            (RECONCILING, "what_hinders_a_replay_is_told_and_puts_nothing_aside"),
            (LIVES, "a_replay_that_a_crash_broke_off_knows_when_the_outage_began"),
            (OUTAGES, "a_replay_whose_commit_is_not_heard_of_is_repeated_without_effect"),
            (LATE, "a_replay_that_is_frozen_in_the_middle_has_effect_once"),
        ],
    ),
    ("it comes back empty", &[(RETURNS, "an_empty_server_is_fenced_off_and_stays_empty")]),
    (
        "it comes back restored from a backup",
        &[
            (RETURNS, "an_older_state_is_fenced_off"),
            (MOVED, "an_older_copy_of_the_database_at_the_new_address_is_fenced_off"),
            (SQLITE_REPLAY, "a_backup_that_was_put_in_the_place_of_the_database_is_refused"),
        ],
    ),
    ("it comes back as a read-only replica", &[(RETURNS, "a_replica_is_not_taken_for_the_primary")]),
    (
        "it comes back on another timeline",
        &[(REPOINTED, "a_replica_that_has_all_of_it_and_is_promoted_is_the_same_primary")],
    ),
    (
        "a proxy leads to another server",
        &[(REPOINTED, "a_server_that_the_address_leads_to_meanwhile_gets_nothing_and_nothing_is_lost")],
    ),
    (
        "it is behind PgBouncer",
        &[
            (POOLER, "what_is_written_while_the_server_behind_a_pooler_is_away_is_there_when_it_is_back"),
            (POOLER, "a_server_that_a_pooler_leads_to_meanwhile_gets_nothing"),
        ],
    ),
    (
        "its disk is full",
        &[
            (FULL_PRIMARY, "a_sqlite_database_whose_disk_is_full_is_owed_what_it_does_not_take"),
            (FULL_PRIMARY, "a_postgresql_server_whose_disk_is_full_says_so_and_is_brought_what_it_is_owed_later"),
        ],
    ),
    (
        "its tables are migrated while it is owed something",
        &[
            (MIGRATIONS, "a_newer_program_that_migrates_meanwhile_costs_nothing_that_is_owed"),
            (MIGRATIONS, "tables_of_an_older_program_are_migrated_before_they_are_brought_what_is_owed"),
        ],
    ),
    ("its sweeper overtakes a late replay", &[(LATE, "a_replay_that_the_sweeper_overtakes_brings_nothing_back")]),
    (
        "a cache holds something old when it is back",
        &[(RETURNING_CACHE, "what_was_written_meanwhile_is_deleted_and_what_others_wrote_is_never_overwritten")],
    ),
];

#[test]
fn each_case_of_bad_luck_is_held_by_tests_that_exist() {
    let all = [OF_THE_PROCESS, OF_THE_JOURNAL, OF_A_CALL, OF_THE_PRIMARY];
    let all = || all.iter().copied().flatten();
    let open: Vec<_> = all().filter(|(_, tests)| tests.is_empty()).collect();
    assert!(open.is_empty(), "without a test: {open:?}");
    let missing: Vec<_> = all().flat_map(|(_, tests)| *tests).filter(|test| !exists(test)).collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
}
