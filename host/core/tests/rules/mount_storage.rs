//! The corner of the store that a mount's engine or method sees: its own, in one step, over any number of pages.

use std::sync::Arc;

use leasehold_core::seams::mount_storage::{MountBatch, MountStorage};
use leasehold_core::seams::storage::{Expect, StorageError};
use leasehold_model::MountAccessor;
use leasehold_storage::MemoryStorage;

use super::support::PausedClock;

/// Two mounts of one store.
fn two() -> (MountStorage, MountStorage) {
    let store = Arc::new(MemoryStorage::new(Arc::new(PausedClock::new())));
    let one = |name: &str| MountStorage::new(store.clone(), MountAccessor::new(name));
    (one("scripted_1"), one("scripted_2"))
}

async fn value(mount: &MountStorage, name: &str) -> Option<Vec<u8>> {
    mount.get(name).await.unwrap().map(|stored| stored.value)
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_written_as_a_whole_or_not_at_all() {
    let (mount, other) = two();
    mount.put("old", b"1".to_vec(), Expect::Absent).await.unwrap();
    let batch = |condition| {
        MountBatch::new()
            .put("new", b"2".to_vec(), Expect::Absent)
            .delete("old", Expect::Present)
            .check("other", condition)
            .put("late", b"3".to_vec(), Expect::Absent)
    };
    let refused = mount.commit(batch(Expect::Present)).await;
    assert!(matches!(refused, Err(StorageError::Conflict(_))), "{refused:?}");
    assert_eq!((value(&mount, "old").await, value(&mount, "new").await), (Some(b"1".to_vec()), None));
    mount.commit(batch(Expect::Absent)).await.unwrap();
    for (name, stored) in [("old", None), ("new", Some(b"2".to_vec())), ("late", Some(b"3".to_vec()))] {
        assert_eq!(value(&mount, name).await, stored, "{name}");
        assert_eq!(value(&other, name).await, None, "{name} is none of another mount's");
    }
    let again = mount.commit(MountBatch::new().delete("old", Expect::Present)).await;
    assert!(matches!(again, Err(StorageError::Conflict(_))), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn folders_are_listed_and_removed_over_all_their_pages() {
    let (mount, other) = two();
    let names: Vec<String> = (0..1_205).map(|n| format!("{n:04}")).collect();
    for name in &names {
        mount.put(&format!("role/{name}"), Vec::new(), Expect::Absent).await.unwrap();
    }
    for (one, name) in [(&mount, "roles/beside"), (&mount, "rol"), (&other, "role/0000")] {
        one.put(name, Vec::new(), Expect::Absent).await.unwrap();
    }
    assert_eq!(mount.names("role/", "", usize::MAX).await.unwrap(), names);
    for most in [0, 1, 499, 500, 501, 1_000, 1_204, 1_205, 1_206] {
        assert_eq!(mount.names("role/", "", most).await.unwrap(), names[..most.min(1_205)], "{most}");
        let expected = &names[701..(701 + most).min(1_205)];
        assert_eq!(mount.names("role/", "0700", most).await.unwrap(), expected, "{most} after 0700");
    }
    mount.remove_below("role/").await.unwrap();
    assert!(mount.names("role/", "", usize::MAX).await.unwrap().is_empty());
    for (one, name) in [(&mount, "roles/beside"), (&mount, "rol"), (&other, "role/0000")] {
        assert!(value(one, name).await.is_some(), "{name} stays");
    }
}
