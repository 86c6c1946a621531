use std::sync::Arc;

use leasehold_core::keys;
use leasehold_core::seams::host::Clock;
use leasehold_core::seams::seal::{RotationSchedule, ScheduleChange, Seal as _};
use leasehold_core::seams::storage::{Batch, Expect, Storage as _};
use leasehold_core::seams::store_copy::WholeStore;
use leasehold_core::testing::{CountingEntropy, ManualClock};
use leasehold_model::{Timestamp, Ttl};

use super::Barrier;
use super::ring::{self, Ring, SEALS_BLOCK};
use crate::MemoryStorage;
use crate::conformance::key;

const DAY: Ttl = Ttl::from_secs(86_400);

fn every(interval: Ttl) -> RotationSchedule {
    RotationSchedule { interval, ..RotationSchedule::default() }
}

fn interval(interval: Ttl) -> ScheduleChange {
    ScheduleChange { interval: Some(interval), ..ScheduleChange::default() }
}

#[test]
fn a_ring_keeps_its_schedule_and_writes_it_only_where_there_is_one() {
    let entropy = CountingEntropy::default();
    let root = ring::random(&entropy);
    let ring = Ring::generate(&entropy, &root, Timestamp::from_secs(1)).unwrap();
    let plain = ring.wrap(&entropy).unwrap();
    let wanted = RotationSchedule { enabled: false, interval: DAY, max_operations: 2_000_000 };
    let ring = ring.scheduled(wanted).unwrap();
    let wrapped = ring.wrap(&entropy).unwrap();
    assert_eq!(wrapped.len(), plain.len() + 17, "without a schedule it is what older versions read");
    let again = Ring::unwrap_with(&root, wrapped).unwrap();
    assert_eq!(again.schedule(), wanted);
    for next in [again.with_room(1), again.rotated(&entropy, Timestamp::from_secs(2), 1)] {
        assert_eq!(next.unwrap().schedule(), wanted);
    }
    let back = again.scheduled(RotationSchedule::default()).unwrap().wrap(&entropy).unwrap();
    assert_eq!(back.len(), plain.len());
    assert_eq!(Ring::unwrap_with(&root, back).unwrap().schedule(), RotationSchedule::default());
}

/// Many servers write at once: each reserves a share of the uses, and no key seals more than it may.
#[test]
fn no_key_seals_more_than_the_schedule_says() {
    let entropy = CountingEntropy::default();
    let root = ring::random(&entropy);
    let max_operations = RotationSchedule::OPERATIONS_MIN;
    let schedule = RotationSchedule { max_operations, ..RotationSchedule::default() };
    let ring = Ring::generate(&entropy, &root, Timestamp::from_secs(1)).unwrap();
    let mut ring = ring.scheduled(schedule).unwrap();
    let (mut blocks, mut granted) = (0, 0);
    while !ring.is_used_up(1) {
        ring = ring.with_room(1).unwrap();
        let mut uses = 0;
        while ring.take(1_000) {
            uses += 1_000;
        }
        granted += uses;
        blocks += 1;
    }
    assert!(blocks >= 64, "{blocks} blocks are room for as many servers");
    assert!(granted <= max_operations && granted > max_operations / 2, "{granted}");
    // Switched off, the bound that always holds is left.
    let off = ring.scheduled(RotationSchedule { enabled: false, ..schedule }).unwrap();
    assert!(!off.is_used_up(1) && off.with_room(1).unwrap().take(SEALS_BLOCK));
}

#[tokio::test]
async fn a_key_that_is_too_old_is_replaced_once_over_all_servers() {
    let clock = Arc::new(ManualClock::at(1_000));
    let inner: Arc<dyn WholeStore> = Arc::new(MemoryStorage::new(clock.clone() as Arc<dyn Clock>));
    let over = || Barrier::new(Arc::clone(&inner), Arc::new(CountingEntropy::default()));
    let one = over();
    let share = one.init_and_unseal_dev().await.unwrap();
    let other = over();
    other.unseal(&share.0).await.unwrap();
    clock.advance(std::time::Duration::from_secs(400 * 86_400));
    assert!(!one.rotate_if_due().await.unwrap(), "nobody has asked for it");
    one.change_rotation_schedule(interval(DAY)).await.unwrap();
    assert_eq!(other.rotation_schedule().await.unwrap(), every(DAY), "every server knows it");
    assert!(one.rotate_if_due().await.unwrap());
    assert!(!one.rotate_if_due().await.unwrap() && !other.rotate_if_due().await.unwrap());
    clock.advance(std::time::Duration::from_secs(86_399));
    assert!(!other.rotate_if_due().await.unwrap());
    clock.advance(std::time::Duration::from_secs(1));
    assert!(other.rotate_if_due().await.unwrap() && !one.rotate_if_due().await.unwrap());
    one.commit(Batch::new().put(key("a"), b"1".to_vec(), Expect::Absent)).await.unwrap();
    assert_eq!(one.key_status().await.unwrap().term, 3);
    clock.advance(std::time::Duration::from_secs(86_400));
    one.change_rotation_schedule(ScheduleChange { enabled: Some(false), ..interval(DAY) }).await.unwrap();
    assert!(!one.rotate_if_due().await.unwrap() && !other.rotate_if_due().await.unwrap());
    // It outlives a restart, and what was sealed opens.
    let next = over();
    next.unseal(&share.0).await.unwrap();
    assert!(!next.rotation_schedule().await.unwrap().enabled);
    assert_eq!(next.get(&key("a")).await.unwrap().unwrap().value, b"1");
    assert!(inner.get(&keys::keyring()).await.unwrap().is_some());
}

/// None of them has seen what the others have just changed.
#[tokio::test]
async fn servers_that_change_different_fields_of_the_schedule_lose_none() {
    let inner: Arc<dyn WholeStore> = Arc::new(MemoryStorage::new(Arc::new(ManualClock::at(1_000)) as Arc<dyn Clock>));
    let over = || Barrier::new(Arc::clone(&inner), Arc::new(CountingEntropy::default()));
    let (one, other, third) = (over(), over(), over());
    let share = one.init_and_unseal_dev().await.unwrap();
    other.unseal(&share.0).await.unwrap();
    third.unseal(&share.0).await.unwrap();
    one.change_rotation_schedule(interval(DAY)).await.unwrap();
    let few = ScheduleChange { max_operations: Some(2_000_000), ..ScheduleChange::default() };
    other.change_rotation_schedule(few).await.unwrap();
    third.change_rotation_schedule(ScheduleChange { enabled: Some(false), ..ScheduleChange::default() }).await.unwrap();
    let wanted = RotationSchedule { enabled: false, interval: DAY, max_operations: 2_000_000 };
    for server in [&one, &other, &third] {
        assert_eq!(server.rotation_schedule().await.unwrap(), wanted);
    }
}

/// All servers over a store have its clock in common, and no other.
#[tokio::test]
async fn the_age_of_a_key_is_reckoned_by_the_clock_of_the_store() {
    let clock = Arc::new(ManualClock::at(1_000));
    let inner: Arc<dyn WholeStore> = Arc::new(MemoryStorage::new(clock.clone() as Arc<dyn Clock>));
    let barrier = Barrier::new(inner, Arc::new(CountingEntropy::default()));
    barrier.init_and_unseal_dev().await.unwrap();
    let installed_at = async || barrier.key_status().await.unwrap().installed_at;
    assert_eq!(installed_at().await, Timestamp::from_secs(1_000));
    clock.advance(std::time::Duration::from_secs(500));
    barrier.rotate().await.unwrap();
    assert_eq!(installed_at().await, Timestamp::from_secs(1_500));
}
