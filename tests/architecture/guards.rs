//! The rules that the chain's promise rests on, and the tests of the code that guard each. The model's own tests take each of its rules
//! out and look for a promise that breaks (`tests/model/tests/rules.rs`); what guards a rule in the code is listed here.

use std::collections::BTreeSet;
use std::fs;

use crate::root;

/// A test: its file, and its name.
pub(crate) type Test = (&'static str, &'static str);

const SUITE_REPLAY: &str = "src/testkit/suite/replay.rs";
const SUITE_LISTS: &str = "src/testkit/suite/replay_lists.rs";
const SUITE_CONFLICTS: &str = "src/testkit/suite/replay_conflicts.rs";
const SUITE_REPEATS: &str = "src/testkit/suite/repeats.rs";
const SUITE_STAMPS: &str = "src/testkit/suite/stamps.rs";
const SUITE_IDENTITY: &str = "src/testkit/suite/expected_identity.rs";
const AMBIGUITY: &str = "tests/chain/ambiguity.rs";
const BREAKER: &str = "src/chain/breaker.rs";
const CACHE_AMBIGUITY: &str = "tests/cache_chain/ambiguity.rs";
const CACHE_CRASH: &str = "tests/cache_chain/crash.rs";
const CACHE_DEGRADED: &str = "tests/cache_chain/degraded.rs";
const CACHE_LATE: &str = "tests/cache_chain/late.rs";
const CACHE_RETURNING: &str = "tests/cache_chain/returning.rs";
const DEGRADED: &str = "tests/chain/degraded.rs";
const FOLDER: &str = "src/chain/journal/tests/folder.rs";
const SURVEY: &str = "src/chain/journal/tests/survey.rs";
const LATE: &str = "tests/chain/late.rs";
const LIVES: &str = "tests/chain/lives.rs";
const ACCEPTED: &str = "tests/chain/accepted.rs";
const MOVED: &str = "tests/chain/moved.rs";
const OTHERS: &str = "tests/chain/others.rs";
const PARKED: &str = "tests/chain/parked.rs";
const TAKEN_OVER: &str = "tests/chain/taken_over.rs";

/// The rules of the model, each under its name there.
const OF_THE_MODEL: &[(&str, &[Test])] = &[
    ("stamp_guard", &[(SUITE_REPEATS, "a_repeat_never_lands_over_something_newer")]),
    (
        "stamped_anew_if_behind",
        &[
            (SUITE_STAMPS, "a_write_by_a_slow_clock_is_visible"),
            (LATE, "what_is_behind_is_stamped_anew_while_its_caller_waits"),
        ],
    ),
    ("repeats_keep_their_stamp", &[(SUITE_REPEATS, "a_repeated_put_never_brings_back_what_was_deleted")]),
    (
        "given_up_keeps_its_stamp",
        &[
            (LATE, "a_put_that_was_given_up_changes_nothing_newer"),
            (LATE, "an_append_that_was_given_up_does_not_outlive_a_delete"),
        ],
    ),
    ("journaled_with_its_last_stamp", &[(LATE, "what_was_stamped_anew_is_journaled_under_its_last_stamp")]),
    ("stamped_in_turn", &[(LATE, "writes_are_ordered_by_their_turns_and_not_by_when_they_were_stamped")]),
    ("clock_reserve", &[(LIVES, "a_clock_that_went_back_while_nothing_ran_gives_no_older_stamps")]),
    ("tombstones", &[(SUITE_REPLAY, "a_replayed_delete_leaves_a_tombstone_where_nothing_was")]),
    (
        "floor",
        &[
            (SUITE_LISTS, "a_delete_that_found_no_list_outvotes_a_replayed_append"),
            (SUITE_LISTS, "a_replayed_append_behind_a_delete_of_another_writer_loses"),
        ],
    ),
    ("gc_floor", &[("src/backend/sqlite/replay.rs", "a_step_older_than_a_swept_tombstone_is_too_old")]),
    (
        "expired_is_applied",
        &[
            (SUITE_REPLAY, "a_replayed_put_that_has_ended_is_never_read_and_brings_nothing_older_back"),
            (DEGRADED, "an_entry_that_expires_while_it_is_owed_revives_nothing_older"),
        ],
    ),
    ("item_id", &[(SUITE_LISTS, "a_replayed_append_of_a_known_id_is_there_already")]),
    (
        "identity",
        &[
            (SUITE_IDENTITY, "another_database_is_refused_by_every_call"),
            ("tests/chain/foreign.rs", "an_emptied_primary_is_fenced_off"),
        ],
    ),
    (
        "journaled_before_acknowledged",
        &[("src/chain/journal/tests/crash.rs", "what_a_killed_process_acknowledged_is_all_there")],
    ),
    (
        "owed_before_acknowledged",
        &[(DEGRADED, "a_write_is_kept_and_read_back_and_what_the_primary_holds_is_never_called_missing")],
    ),
    (
        "owed_key_is_journaled",
        &[
            (AMBIGUITY, "a_newer_write_of_the_key_follows_into_the_journal"),
            (AMBIGUITY, "a_later_write_of_a_batch_follows_one_of_its_key_that_is_in_doubt"),
        ],
    ),
    (
        "owed_key_is_not_judged",
        &[(AMBIGUITY, "what_only_the_primary_can_judge_is_unavailable_for_a_key_that_is_owed_something")],
    ),
    ("one_write_in_flight", &[("src/chain/in_flight.rs", "a_key_is_held_by_one_and_then_by_the_next")]),
    ("unknown_if_sent", &[(AMBIGUITY, "a_condition_whose_reply_was_lost_is_looked_up_or_unknown_and_never_journaled")]),
    (
        "unavailable_while_open",
        &[(DEGRADED, "a_write_is_kept_and_read_back_and_what_the_primary_holds_is_never_called_missing")],
    ),
    (
        "settled_exactly",
        &[
            ("src/chain/journal/tests.rs", "what_was_settled_is_gone_and_what_was_put_aside_stays_with_its_reason"),
            ("tests/chain/reconciling.rs", "a_replay_that_breaks_off_goes_on_where_it_was"),
        ],
    ),
    ("paid_on_reply", &[("tests/chain/reconciling.rs", "a_replay_that_breaks_off_goes_on_where_it_was")]),
    (
        "losers_are_kept",
        &[
            (OTHERS, "their_newer_write_wins_and_ours_is_kept_and_counted"),
            (SUITE_CONFLICTS, "what_a_replayed_put_lost_is_kept_as_it_was"),
        ],
    ),
    (
        "overwritten_is_kept",
        &[
            (OTHERS, "our_newer_write_wins_and_theirs_is_kept"),
            (SUITE_CONFLICTS, "what_was_overwritten_meanwhile_is_kept"),
        ],
    ),
    (
        "meanwhile_covers_the_skew",
        &[(OTHERS, "what_a_slow_clock_wrote_meanwhile_is_kept_and_what_is_older_than_clocks_differ_is_not")],
    ),
    ("outage_survives_a_crash", &[(LIVES, "a_replay_that_a_crash_broke_off_knows_when_the_outage_began")]),
];

/// What tells whether the primary is away, and what a journal takes.
const OF_THE_BREAKER_AND_THE_JOURNAL: &[(&str, &[Test])] = &[
    ("an answer never counts, be it an error", &[(BREAKER, "silence_opens_it_by_rate_and_answers_never_do")]),
    ("what says that it is down opens it at once", &[(BREAKER, "a_store_that_says_it_is_down_opens_it_at_once")]),
    (
        "one probe without an answer does not open it",
        &[(BREAKER, "two_probes_without_an_answer_open_it_and_one_that_was_merely_refused_does_not")],
    ),
    (
        "nor do probes while writes are taken",
        &[(BREAKER, "a_probe_without_an_answer_says_nothing_while_writes_are_answered")],
    ),
    (
        "a flapping primary is kept waiting",
        &[(BREAKER, "a_flapping_primary_is_kept_waiting_longer_and_longer_and_forgiven_in_time")],
    ),
    (
        "whoever is on his way is let go when it opens",
        &[
            ("src/chain/gate.rs", "calls_of_all_threads_hear_that_the_breaker_opened"),
            (CACHE_DEGRADED, "calls_on_their_way_are_answered_at_once_when_the_primary_turns_out_to_be_away"),
        ],
    ),
    ("a full journal takes nothing", &[(DEGRADED, "a_full_journal_takes_nothing_and_empties_itself")]),
    (
        "a journal whose disk failed takes nothing",
        &[(
            "src/chain/journal/tests/disk.rs",
            "a_disk_that_failed_takes_no_more_operations_but_gives_back_what_it_holds",
        )],
    ),
    ("what is too old is put aside", &[(PARKED, "what_waited_for_longer_than_deletes_are_remembered_is_put_aside")]),
    ("a journal belongs to the process that locked it", &[(FOLDER, "each_process_has_a_file_of_its_own")]),
    (
        "an item that a later one of its list overtook is not kept",
        &[(AMBIGUITY, "an_item_that_a_later_one_of_its_list_overtook_is_not_kept")],
    ),
    ("no guess is made of what is owed", &[(PARKED, "who_wants_guesses_gets_none_of_what_is_owed")]),
    (
        "what is in the journal is owed, whoever heard of it",
        &[("tests/chain/bad_luck.rs", "what_was_being_journaled_as_its_runtime_ended_is_known_to_be_owed")],
    ),
    (
        "what is newer at the primary is shown, and stays shown",
        &[
            (TAKEN_OVER, "whoever_begins_with_it_is_told_what_is_newer_at_the_primary"),
            (PARKED, "what_was_put_aside_is_not_read_over_what_others_wrote_or_deleted_since"),
            (TAKEN_OVER, "whoever_was_told_what_is_newer_is_not_told_what_is_older_when_the_primary_goes_away"),
        ],
    ),
    (
        "a list is not empty by another process's delete",
        &[(TAKEN_OVER, "a_delete_that_a_process_began_with_says_nothing_of_lists_while_the_primary_is_there")],
    ),
];

/// What keeps a cache from answering something old.
const OF_A_CACHE: &[(&str, &[Test])] = &[
    (
        "what was written meanwhile is deleted at the primary",
        &[(CACHE_RETURNING, "what_was_written_meanwhile_is_deleted_and_what_others_wrote_is_never_overwritten")],
    ),
    (
        "and not read there before",
        &[(CACHE_RETURNING, "until_it_is_deleted_a_key_is_answered_here_and_its_writes_wait")],
    ),
    (
        "a write in doubt is deleted too",
        &[(CACHE_AMBIGUITY, "a_write_in_doubt_counts_as_written_here_and_is_deleted_there")],
    ),
    ("what may come late is waited for", &[(CACHE_RETURNING, "a_write_that_lands_late_is_deleted_too")]),
    (
        "a delete that was given up is waited for",
        &[(CACHE_LATE, "a_delete_that_was_broken_off_takes_nothing_that_was_acknowledged_since")],
    ),
    ("a delete comes behind a ping", &[(CACHE_RETURNING, "every_delete_comes_behind_a_ping_of_its_own")]),
    (
        "a write keeps its key to its end though its caller goes away",
        &[(CACHE_AMBIGUITY, "a_batch_whose_caller_went_away_does_not_land_over_what_was_written_since")],
    ),
    ("what only the primary can judge is unavailable", &[(CACHE_DEGRADED, "what_needs_the_primary_is_unavailable")]),
    ("also until its key is clean", &[(CACHE_RETURNING, "what_needs_the_primary_waits_for_its_key_to_be_clean")]),
    ("what stood in is forgotten", &[(CACHE_RETURNING, "what_stood_in_is_forgotten")]),
    (
        "too many keys are one",
        &[
            ("src/chain/cache/dirty.rs", "too_many_keys_or_bytes_or_prefixes_make_everything_dirty"),
            (CACHE_RETURNING, "too_many_keys_clear_what_is_the_chains_and_nothing_else"),
        ],
    ),
    (
        "a mark is on the disk before anything is acknowledged",
        &[(CACHE_CRASH, "what_could_not_be_marked_is_not_acknowledged")],
    ),
    ("and the next start heeds it", &[(CACHE_CRASH, "the_next_start_clears_before_it_reads")]),
    (
        "a disk of marks that hangs keeps nothing dirty",
        &[(CACHE_CRASH, "a_disk_of_marks_that_hangs_keeps_nothing_dirty")],
    ),
];

/// What the model does not know: adoption, and operations that are refused.
const BEYOND_THE_MODEL: &[(&str, &[Test])] = &[
    (
        "operations are judged each as its own writer's",
        &[
            (SUITE_REPLAY, "writers_of_one_journal_are_judged_each_as_its_own"),
            (LIVES, "of_two_processes_that_died_degraded_the_newer_write_wins_and_the_other_is_kept"),
        ],
    ),
    (
        "an heir knows what it took over",
        &[
            (SUITE_REPLAY, "what_an_heir_writes_is_in_no_conflict_with_what_it_took_over"),
            (LIVES, "what_a_process_takes_over_it_replaces_without_a_conflict"),
            (LIVES, "what_the_process_before_wrote_is_replaced_without_a_conflict_though_it_owed_nothing"),
        ],
    ),
    (
        "no item overtakes one that was not taken",
        &[
            (SUITE_LISTS, "what_follows_an_append_that_failed_is_withheld"),
            (PARKED, "items_wait_behind_one_that_is_not_taken_and_nothing_else_does"),
            (PARKED, "what_is_tried_again_comes_in_its_order"),
        ],
    ),
    (
        "a changed address is fenced",
        &[
            (MOVED, "another_database_at_the_new_address_is_fenced_off_and_the_reason_is_told"),
            (MOVED, "a_database_at_the_new_address_that_cannot_say_which_it_is_is_not_used"),
            (MOVED, "a_wrong_database_at_the_new_address_is_not_taken_for_the_known_one"),
            (MOVED, "nothing_is_made_in_an_empty_database_at_the_new_address"),
            (MOVED, "a_ping_does_not_take_a_wrong_database_for_the_known_one"),
            (SURVEY, "who_does_not_know_the_database_learns_of_it_from_others_at_its_address"),
            (SURVEY, "what_a_damaged_journal_says_decides_nothing"),
        ],
    ),
    (
        "who looks whose a journal is keeps nobody from knowing it",
        &[
            (SURVEY, "who_looks_through_the_folder_waits_for_who_does_so_already"),
            (MOVED, "all_that_start_at_once_are_fenced_off_from_another_database"),
            (MOVED, "who_rests_while_it_looks_through_the_folder_keeps_nobody_out"),
        ],
    ),
    ("it is before anything is replayed there", &[(MOVED, "what_was_written_while_fenced_stays_here_over_a_restart")]),
    (
        "what a dead process knew of the primary is known",
        &[
            (MOVED, "an_older_copy_of_the_database_at_the_new_address_is_fenced_off"),
            (MOVED, "a_copy_is_not_raised_by_probes_until_it_passes_for_the_original"),
        ],
    ),
    (
        "a file that was copied is told by who wrote to it last",
        &[
            (FOLDER, "a_crash_after_the_copy_does_not_copy_it_twice"),
            (FOLDER, "what_was_written_to_a_file_after_it_was_copied_is_copied_too"),
            (FOLDER, "what_the_same_process_wrote_to_its_file_after_it_was_copied_is_copied_too"),
            (FOLDER, "a_file_that_was_copied_is_nobodys_own_again"),
        ],
    ),
    (
        "what was accepted holds for the dead too, at the address where it answered",
        &[
            (SURVEY, "who_was_told_what_to_take_for_known_and_died_is_taken_over_as_knowing_it"),
            (ACCEPTED, "what_was_accepted_stays_known_though_one_who_had_not_heard_of_it_owed_more"),
            (ACCEPTED, "what_was_accepted_at_one_address_says_nothing_of_another"),
            (ACCEPTED, "a_word_is_gone_once_the_next_start_has_written_it_down"),
            (ACCEPTED, "those_that_were_fenced_for_another_address_hear_of_it_too"),
        ],
    ),
    (
        "a probe is judged by what was known before it",
        &[(AMBIGUITY, "a_probe_whose_answer_comes_after_that_of_a_later_ping_says_nothing_bad")],
    ),
    (
        "what arrives after its deadline changes nothing",
        &[(
            "tests/postgres_chain/late.rs",
            "what_the_network_held_back_for_longer_than_its_time_replaces_nothing_unseen",
        )],
    ),
];

/// The names of the model's rules, as its source lists them.
fn rules_of_the_model() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("tests/model/src/rules.rs")).unwrap();
    let (_, listed) = text.split_once("\nrules! {\n").expect("the model lists its rules");
    let (listed, _) = listed.split_once("\n}\n").expect("the list ends");
    let names = listed.lines().map(str::trim).filter(|line| !line.starts_with("///"));
    names.filter_map(|line| line.strip_suffix(',')).map(str::to_owned).collect()
}

/// Whether a file has a test, or a case of the suite, of this name.
pub(crate) fn exists((file, name): &Test) -> bool {
    let text = fs::read_to_string(root().join(file)).unwrap_or_default();
    let function = format!("fn {name}(");
    let Some((before, _)) = text.split_once(&function) else { return false };
    // A case of the suite is listed, as is a test that needs servers; anything else is marked as a test.
    let line = [format!("\n        {name},\n"), format!("\n        {name}\n")];
    let is_listed = line.iter().any(|line| text.contains(line));
    let marked = before
        .rsplit("\n\n")
        .next()
        .is_some_and(|attributes| attributes.contains("test]") || attributes.contains("::test("));
    is_listed || marked
}

#[test]
fn each_rule_of_the_chain_is_guarded_by_tests_that_exist() {
    let listed: BTreeSet<String> = OF_THE_MODEL.iter().map(|(rule, _)| (*rule).to_owned()).collect();
    assert_eq!(listed, rules_of_the_model(), "the model has other rules than are listed here");
    let lists = [OF_THE_MODEL, BEYOND_THE_MODEL, OF_THE_BREAKER_AND_THE_JOURNAL, OF_A_CACHE];
    let all = || lists.into_iter().flatten();
    let unguarded: Vec<_> = all().filter(|(_, tests)| tests.is_empty()).collect();
    assert!(unguarded.is_empty(), "without a test: {unguarded:?}");
    let missing: Vec<_> = all().flat_map(|(_, tests)| *tests).filter(|test| !exists(test)).collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
    assert!(exists(&("tests/model/tests/rules.rs", "without_any_one_rule_a_promise_is_broken")));
}

#[test]
fn what_is_no_test_guards_nothing() {
    assert!(!exists(&("tests/architecture/guards.rs", "rules_of_the_model")));
    assert!(!exists(&("tests/architecture/guards.rs", "nothing_of_this_name")));
    assert!(!exists(&("tests/architecture/nowhere.rs", "what_is_no_test_guards_nothing")));
    assert!(exists(&("tests/architecture/guards.rs", "what_is_no_test_guards_nothing")));
}
