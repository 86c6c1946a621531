//! The names of a folder, page by page.

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_core::lease::{LeaseKind, LeaseRow};
use leasehold_core::seams::storage::{Batch, Expect, Listed, Storage};

use super::{Fixture, key, row};

/// What a list shows, by its definition: from all texts, one by one.
fn expected(texts: &BTreeSet<String>, prefix: &str, after: &str) -> Vec<String> {
    let below = texts.iter().filter_map(|text| text.strip_prefix(prefix)).filter(|rest| !rest.is_empty());
    let names = below.map(|rest| rest.split_once('/').map_or(rest.to_owned(), |(folder, _)| format!("{folder}/")));
    names.filter(|name| name.as_str() > after).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Pages of each size, put together, are the whole.
async fn compare(storage: &Arc<dyn Storage>, of: Listed, texts: &BTreeSet<String>, prefix: &str, after: &str) {
    let whole = expected(texts, prefix, after);
    for limit in [1, 2, 3, 7, 1_000] {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let last = seen.last().map_or(after, String::as_str);
            let page = storage.names(of, prefix, last, limit).await.unwrap();
            assert!(page.len() <= limit as usize);
            if page.is_empty() {
                break;
            }
            seen.extend(page);
            assert!(seen.len() <= whole.len(), "{of:?} below {prefix:?} after {after:?} by {limit}: {seen:?}");
        }
        assert_eq!(seen, whole, "{of:?} below {prefix:?} after {after:?} by {limit}");
    }
    assert!(storage.names(of, prefix, after, 0).await.unwrap().is_empty());
}

/// Names that are prefixes of others, on both sides of the slash in their order, and of all widths of UTF-8.
const PARTS: [&str; 14] =
    ["a", "a!", "a.", "a0", "aa", "A", "é", "z", "%", "_", "~", "\u{d7ff}", "\u{e000}", "a\u{10ffff}"];

pub(super) async fn names_are_those_directly_below_and_folders_count_once(Fixture { storage, .. }: Fixture) {
    let (mut keys, mut ids) = (BTreeSet::new(), BTreeSet::new());
    let mut batch = Batch::new();
    // Numbers that look random and are the same each time.
    let mut seed = 7_u64;
    let mut pick = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        PARTS[usize::try_from((seed >> 33) % 14).unwrap()]
    };
    for depth in (1..=4).cycle().take(240) {
        let text = (0..depth).map(|_| pick()).collect::<Vec<_>>().join("/");
        let (name, lease) = (format!("p/{text}"), format!("p/{text}/1"));
        if keys.insert(name.clone()) {
            batch = batch.put(key(&name), Vec::new(), Expect::Absent);
        }
        if ids.insert(lease.clone()) {
            batch = batch.insert(row(&lease, 1));
        }
    }
    // Neighbours that a range without an end, or with a wrong one, would show; and keys that no list of a folder should fall over.
    for name in ["p", "p!", "p.", "p0", "q/a", "p/", "p//", "p//x", "p/a/", "p/nul\0", "p/nul\0/x"] {
        keys.insert(name.to_owned());
        batch = batch.put(key(name), Vec::new(), Expect::Absent);
    }
    for lease in ["o/1", "p0/1", "q/a/1"] {
        ids.insert(lease.to_owned());
        batch = batch.insert(row(lease, 1));
    }
    for job in ["p/a!/job", "p/job/1", "sys/jobs/1"] {
        batch = batch.insert(LeaseRow { kind: LeaseKind::Job, ..row(job, 1) });
    }
    storage.commit(batch).await.unwrap();
    // A barrier keeps keys of its own.
    let all = storage.scan(&key(""), None, 10_000).await.unwrap();
    keys.extend(all.into_iter().map(|key| key.as_str().to_owned()));
    for prefix in ["p/", "p/a/", "p/a/a/", "p/\u{d7ff}/", "", "q/", "none/", "p", "p//", "p/nul\0/"] {
        compare(&storage, Listed::Values, &keys, prefix, "").await;
        compare(&storage, Listed::Leases, &ids, prefix, "").await;
    }
    for after in ["a", "a/", "a/a", "a/zzz/z", "a0", "\u{d7ff}/", "A", "/", "\u{10ffff}", "b", "!"] {
        compare(&storage, Listed::Values, &keys, "p/", after).await;
        compare(&storage, Listed::Leases, &ids, "p/", after).await;
    }
}
