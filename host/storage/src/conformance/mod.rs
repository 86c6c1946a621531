//! What every store promises, as tests that any store can be put through.
//!
//! Must not know: any store. It sees [`Storage`] and a clock that it moves.
//!
//! Start with [`run`], and [`run_copies`] for stores that can be copied as a whole. Each function beneath it is named after the fact it proves and gets a store of its own, empty.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a store that fails the suite is to panic")]

mod changes;
mod claims;
mod copies;
mod leases;
mod names;
mod values;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use leasehold_core::lease::{LeaseKind, LeaseRow, LeaseState};
use leasehold_core::seams::storage::{Key, Storage};
use leasehold_core::seams::store_copy::WholeStore;
use leasehold_core::testing::ManualClock;
use leasehold_model::{LeaseId, MountAccessor, Timestamp, TokenHash};

/// An empty store, and the clock it was given.
pub struct Fixture {
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<ManualClock>,
}

impl std::fmt::Debug for Fixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fixture").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// The same, of a store that can be copied as a whole.
pub struct Copied {
    pub storage: Arc<dyn WholeStore>,
    pub clock: Arc<ManualClock>,
}

impl std::fmt::Debug for Copied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copied").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// The moment that a fixture's clock begins with, in seconds.
pub const START_SECS: i64 = 1_000;

type Fact<T> = (&'static str, fn(T) -> Pin<Box<dyn Future<Output = ()> + Send>>);

macro_rules! facts {
    ($($part:ident::$fact:ident),+ $(,)?) => {
        &[$((stringify!($fact), |fixture| Box::pin($part::$fact(fixture)))),+]
    };
}

const FACTS: &[Fact<Fixture>] = facts![
    values::what_was_put_is_read_until_it_is_deleted,
    values::versions_only_grow_also_when_a_key_is_made_anew,
    values::a_batch_is_written_whole_or_not_at_all,
    values::every_expectation_is_checked,
    values::a_batch_sees_its_own_changes,
    values::a_batch_that_expects_nothing_is_refused_where_there_is_something,
    values::nothing_slips_below_what_goes,
    values::one_conflict_does_not_spoil_the_batches_beside_it,
    values::concurrent_increments_lose_nothing,
    values::a_scan_is_in_byte_order_and_pages_without_gaps,
    values::a_prefix_matches_no_more_than_itself,
    values::values_of_any_bytes_and_sizes_come_back,
    names::names_are_those_directly_below_and_folders_count_once,
    leases::a_row_comes_back_as_it_went_in,
    leases::a_row_is_inserted_once,
    leases::a_move_needs_the_state_and_the_fence,
    leases::a_move_without_a_body_keeps_the_stored_one,
    leases::a_removal_needs_the_fence,
    leases::filters_hold_together,
    leases::lists_of_leases_page_in_id_order,
    leases::rows_and_values_share_a_batch,
    leases::counts_follow_every_change,
    leases::counts_equal_a_count_after_any_history,
    leases::counts_of_many_writers_add_up,
    claims::rows_are_claimed_in_order_of_their_turn,
    claims::ten_thousand_rows_are_claimed_in_order,
    claims::two_holders_never_have_one_row,
    claims::a_hold_ends_by_the_clock_of_the_store,
    claims::a_late_holder_is_fenced_off,
    claims::rows_of_skipped_connections_stay,
    claims::a_named_row_is_claimed_due_or_not,
    claims::the_next_turn_is_the_least,
    changes::what_was_written_or_deleted_since_a_number_is_told,
    changes::uncached_keys_are_not_numbered_when_they_go,
    changes::old_deletions_are_forgotten_and_said_to_be,
    changes::no_change_hides_behind_a_later_number,
];

/// Puts a store through every fact. `make` makes an empty one with a [`ManualClock`] that stands at [`START_SECS`].
///
/// # Panics
/// When a fact does not hold.
pub async fn run<F, M>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Fixture>,
{
    for (name, fact) in FACTS {
        // Shown with a failure, so that it says which fact it was.
        println!("conformance: {name}");
        fact(make().await).await;
    }
}

/// As [`run`], only those facts whose name begins with `beginning`.
#[cfg(test)]
pub(crate) async fn run_some<F, M>(beginning: &str, make: M)
where
    M: Fn() -> F,
    F: Future<Output = Fixture>,
{
    let wanted: Vec<_> = FACTS.iter().filter(|(name, _)| name.starts_with(beginning)).collect();
    assert!(!wanted.is_empty(), "no fact is called so: {beginning}");
    for (name, fact) in wanted {
        println!("conformance: {name}");
        fact(make().await).await;
    }
}

const FACTS_OF_COPIES: &[Fact<Copied>] = facts![
    copies::what_is_exported_is_all_in_order_and_comes_back,
    copies::what_is_replaced_leaves_nothing_of_what_was_there,
    copies::versions_go_on_when_all_is_replaced,
    copies::a_copy_without_an_end_replaces_nothing,
    copies::an_export_sees_one_moment,
    copies::an_export_that_nobody_takes_ends,
];

/// Puts a store through every fact about whole copies, as [`run`] does through all others.
///
/// # Panics
/// When a fact does not hold.
pub async fn run_copies<F, M>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Copied>,
{
    for (name, fact) in FACTS_OF_COPIES {
        println!("conformance: {name}");
        fact(make().await).await;
    }
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text)
}

pub(crate) fn id(text: &str) -> LeaseId {
    text.parse().unwrap()
}

/// A row that falls due `at` seconds.
pub(crate) fn row(name: &str, at: i64) -> LeaseRow {
    LeaseRow {
        id: id(name),
        kind: LeaseKind::Secret,
        state: LeaseState::Active,
        next_at: Timestamp::from_secs(at),
        expires_at: Timestamp::from_secs(at),
        fence: 0,
        holder: None,
        held_until: None,
        token: TokenHash::from_hex("aa"),
        mount: MountAccessor::new("database_1"),
        connection: "one".to_owned(),
        body: format!("body of {name}").into_bytes(),
    }
}
