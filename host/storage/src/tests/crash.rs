//! `kill -9` in the middle of commits: what was acknowledged is there, and every batch is whole.
//!
//! The test starts its own binary again as the process that will be killed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use leasehold_core::seams::storage::{Batch, Expect, LeaseFilter, Page, Storage};

use super::{clock, place};
use crate::SqliteStorage;
use crate::conformance::{key, row};

const FILE_VARIABLE: &str = "LEASEHOLD_CRASH_TEST_FILE";
const CHILD: &str = "tests::crash::the_process_that_is_killed";
const WRITERS: usize = 6;
const ROUNDS: usize = 8;

/// Commits until it is killed; writes a batch's name to standard output once `commit` has returned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by no_acknowledged_batch_is_lost_and_none_is_torn, as the process that it kills"]
async fn the_process_that_is_killed() {
    let file = std::env::var(FILE_VARIABLE).expect("the file to write to");
    let storage = Arc::new(SqliteStorage::open(file, clock()).unwrap());
    let started = storage.scan(&key("round/"), None, 1_000).await.unwrap().len();
    storage.commit(Batch::new().put(key(&format!("round/{started:03}")), vec![], Expect::Absent)).await.unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let storage = Arc::clone(&storage);
            tokio::spawn(async move {
                for n in 0_u32.. {
                    let name = format!("{started:03}-{writer}-{n:06}");
                    let batch = Batch::new()
                        .put(key(&format!("a/{name}")), vec![1; 700], Expect::Absent)
                        .put(key(&format!("b/{name}")), vec![2; 700], Expect::Absent)
                        .insert(row(&format!("d/{name}"), i64::from(n)));
                    storage.commit(batch).await.unwrap();
                    writeln!(std::io::stdout().lock(), "done {name}").unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn no_acknowledged_batch_is_lost_and_none_is_torn() {
    let (_directory, file) = place();
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        // Each round lives for another number of batches.
        acknowledged.extend(run_and_kill(&file, 20 + round * 37));
        let storage = SqliteStorage::open(&file, clock()).expect("the lock of a killed process is no lock");
        let (a, b, leases) = (names(&storage, "a/").await, names(&storage, "b/").await, leases(&storage).await);
        assert_eq!(a, b, "round {round}: a torn batch");
        assert_eq!(a, leases, "round {round}: a torn batch");
        let lost: Vec<_> = acknowledged.difference(&a).collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");
    }
    assert!(acknowledged.len() > ROUNDS * 20, "the children have written: {}", acknowledged.len());
}

/// The names of the batches that were acknowledged before the kill.
fn run_and_kill(file: &Path, after: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([CHILD, "--exact", "--ignored", "--nocapture"])
        .env(FILE_VARIABLE, file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while text.matches("done ").count() < after {
        assert!(output.read_line(&mut text).unwrap() > 0, "the child ended by itself: {text}");
    }
    // SIGKILL, on every Unix.
    child.kill().unwrap();
    child.wait().unwrap();
    output.read_to_string(&mut text).unwrap();
    // A last line without its end was cut off by the kill.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| line.split_once("done ")).map(|(_, name)| name.to_owned()).collect()
}

async fn names(storage: &SqliteStorage, prefix: &str) -> BTreeSet<String> {
    let keys = storage.scan(&key(prefix), None, u32::MAX).await.unwrap();
    keys.iter().map(|key| key.as_str().strip_prefix(prefix).unwrap().to_owned()).collect()
}

async fn leases(storage: &SqliteStorage) -> BTreeSet<String> {
    let all = storage.leases(&LeaseFilter::default(), &Page { after: None, limit: u32::MAX }).await.unwrap();
    all.iter().map(|row| row.id.random().to_owned()).collect()
}
