//! The one thread that writes.
//!
//! While the disk is busy with one transaction, requests gather; the next transaction takes all of them. Under load many
//! requests share one flush, and a lone request waits for nobody.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::vec::Drain;

use leasehold_core::keys;
use leasehold_core::lease::LeaseRow;
use leasehold_core::seams::host::Clock;
use leasehold_core::seams::storage::{Batch, Change, Expect, Key, StorageError};
use leasehold_model::{LeaseId, Ttl};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{mpsc, oneshot};

use super::open::{OpenError, Opened};
use super::rows::{self, columns};
use super::unavailable;
use crate::integers::{integer, number};
use crate::memory::{TOMBSTONES_MAX, holds, is_numbered};

/// Sends work to the thread; dropping it waits for the thread to finish what it has.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Requests that wait; further ones wait to wait.
const QUEUE_MAX: usize = 1_024;
/// Of one transaction: bounds how long its first request waits for the others.
const GROUP_MAX: usize = 256;

type Reply<T> = oneshot::Sender<Result<T, StorageError>>;

enum Job {
    Commit { batch: Batch, reply: Reply<()> },
    ClaimDue { holder: String, limit: u32, hold_for: Ttl, skip: Vec<String>, reply: Reply<Vec<LeaseRow>> },
    Claim { holder: String, id: LeaseId, hold_for: Ttl, reply: Reply<Option<LeaseRow>> },
}

impl Writer {
    pub(super) fn start(opened: Opened, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let path = opened.path.clone();
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let writer = WriterThread { opened, clock, version: 0 };
        let thread = thread::Builder::new().name("storage-writer".to_owned()).spawn(move || writer.work(jobs));
        let thread = thread.map_err(|source: io::Error| OpenError::File { path, source })?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    pub(super) async fn commit(&self, batch: Batch) -> Result<(), StorageError> {
        self.ask(|reply| Job::Commit { batch, reply }).await
    }

    pub(super) async fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError> {
        let (holder, skip) = (holder.to_owned(), skip.to_vec());
        self.ask(|reply| Job::ClaimDue { holder, limit, hold_for, skip, reply }).await
    }

    pub(super) async fn claim(
        &self,
        holder: &str,
        id: &LeaseId,
        hold_for: Ttl,
    ) -> Result<Option<LeaseRow>, StorageError> {
        let (holder, id) = (holder.to_owned(), id.clone());
        self.ask(|reply| Job::Claim { holder, id, hold_for, reply }).await
    }

    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StorageError> {
        let gone = || StorageError::Unavailable("the writer has stopped".to_owned());
        let (reply, answer) = oneshot::channel();
        self.queue.as_ref().ok_or_else(gone)?.send(job(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        // Our lock falls with the thread: whoever opens the file again right after must find it free.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the storage writer ended in a panic");
        }
    }
}

/// What the thread owns.
struct WriterThread {
    opened: Opened,
    clock: Arc<dyn Clock>,
    /// The number of the last change, as the transaction under way has read or raised it. It counts within one transaction only:
    /// another handle on the file may raise it in between.
    version: u64,
}

/// A job done inside a transaction that is still open: kept until `COMMIT` has returned.
enum Done {
    Commit(Reply<()>, Result<(), StorageError>),
    ClaimDue(Reply<Vec<LeaseRow>>, Result<Vec<LeaseRow>, StorageError>),
    Claim(Reply<Option<LeaseRow>>, Result<Option<LeaseRow>, StorageError>),
}

impl WriterThread {
    fn work(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while jobs.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
            let mut done = Vec::with_capacity(group.len());
            let mut left = group.drain(..);
            let outcome = self.transact(&mut left, &mut done);
            if let Err(error) = &outcome {
                tracing::error!(error = %error, "could not write to storage");
                if !self.opened.connection.is_autocommit()
                    && let Err(error) = self.opened.connection.execute_batch("rollback")
                {
                    tracing::error!(error = %error, "could not roll back");
                }
            }
            // An answer about a state that was never written is no answer, a conflict included.
            let failed = outcome.err().map(|error| error.to_string());
            done.into_iter().for_each(|done| done.reply(failed.as_deref()));
            left.for_each(|job| job.refuse(failed.as_deref().unwrap_or_default()));
        }
    }

    /// Takes jobs as it does them. An error means that nothing of any of them was written.
    fn transact(&mut self, jobs: &mut Drain<'_, Job>, done: &mut Vec<Done>) -> rusqlite::Result<()> {
        run(&self.opened.connection, "begin immediate")?;
        // `begin immediate` has locked out every other writer: the number that is read now is the last one there is.
        let version = counter(&self.opened.connection, "version")?;
        self.version = version;
        for job in jobs {
            match job {
                Job::Commit { batch, reply } => match self.batch(batch) {
                    Ok(result) => done.push(Done::Commit(reply, result)),
                    Err(error) => {
                        done.push(Done::Commit(reply, Ok(())));
                        return Err(error);
                    }
                },
                Job::ClaimDue { holder, limit, hold_for, skip, reply } => {
                    let result = self.claim_due(&holder, limit, hold_for, &skip);
                    done.push(Done::ClaimDue(reply, result));
                }
                Job::Claim { holder, id, hold_for, reply } => {
                    let result = self.claim(&holder, &id, hold_for);
                    done.push(Done::Claim(reply, result));
                }
            }
        }
        if self.version != version {
            set_counter(&self.opened.connection, "version", self.version)?;
        }
        run(&self.opened.connection, "commit")
    }

    /// All of the batch, or nothing and the reason. The outer error is the database's own and ends the transaction.
    fn batch(&mut self, batch: Batch) -> rusqlite::Result<Result<(), StorageError>> {
        let connection = &self.opened.connection;
        let version = self.version + 1;
        let is_numbered = batch.0.iter().any(is_numbered);
        let deletes = batch.0.iter().any(|change| matches!(change, Change::Delete { key, .. } if keys::is_cached(key)));
        run(connection, "savepoint batch")?;
        for change in batch.in_order() {
            if let Some(refused) = apply(connection, change, version)? {
                run(connection, "rollback to batch")?;
                run(connection, "release batch")?;
                return Ok(Err(refused));
            }
        }
        run(connection, "release batch")?;
        if deletes {
            forget_tombstones(connection)?;
        }
        if is_numbered {
            self.version = version;
        }
        Ok(Ok(()))
    }

    fn claim_due(
        &self,
        holder: &str,
        limit: u32,
        hold_for: Ttl,
        skip: &[String],
    ) -> Result<Vec<LeaseRow>, StorageError> {
        const TEXT: &str = concat!(
            "update lease set holder = ?1, held_until = ?2, fence = fence + 1 where id in (",
            " select id from lease where next_at <= ?3",
            " and (holder is null or held_until is null or held_until <= ?3)",
            " and connection not in (select value from json_each(?4))",
            " order by next_at, id limit ?5",
            ") returning ",
            columns!()
        );
        let now = self.clock.now();
        let skip = serde_json::to_string(skip).map_err(|error| StorageError::Unavailable(error.to_string()))?;
        let mut statement = self.opened.connection.prepare_cached(TEXT).map_err(unavailable)?;
        let until = (now + hold_for).as_nanos();
        let mut found = statement.query(params![holder, until, now.as_nanos(), skip, limit]).map_err(unavailable)?;
        let mut claimed = Vec::new();
        while let Some(row) = found.next().map_err(unavailable)? {
            // One row that cannot be read must not keep the others from their end; it stays held, then comes again.
            match rows::read(row) {
                Ok(row) => claimed.push(row),
                Err(error) => tracing::error!(error = %error, "could not read a lease row that is due"),
            }
        }
        claimed.sort_unstable_by(|a, b| (a.next_at, &a.id).cmp(&(b.next_at, &b.id)));
        Ok(claimed)
    }

    fn claim(&self, holder: &str, id: &LeaseId, hold_for: Ttl) -> Result<Option<LeaseRow>, StorageError> {
        const TEXT: &str = concat!(
            "update lease set holder = ?1, held_until = ?2, fence = fence + 1 where id = ?3",
            " and (holder is null or held_until is null or held_until <= ?4 or holder = ?1) returning ",
            columns!()
        );
        let now = self.clock.now();
        let until = (now + hold_for).as_nanos();
        let connection = &self.opened.connection;
        {
            let mut statement = connection.prepare_cached(TEXT).map_err(unavailable)?;
            let parameters = params![holder, until, id.as_str(), now.as_nanos()];
            let mut found = statement.query(parameters).map_err(unavailable)?;
            if let Some(row) = found.next().map_err(unavailable)? {
                let row = rows::read(row)?;
                // To the end, or the statement would be reset halfway.
                found.next().map_err(unavailable)?;
                return Ok(Some(row));
            }
        }
        let mut statement = connection.prepare_cached("select 1 from lease where id = ?1").map_err(unavailable)?;
        match statement.exists([id.as_str()]).map_err(unavailable)? {
            true => Err(StorageError::Fenced(id.clone())),
            false => Ok(None),
        }
    }
}

/// `Some`: what the batch expected does not hold.
fn apply(connection: &Connection, change: Change, version: u64) -> rusqlite::Result<Option<StorageError>> {
    match change {
        Change::Put { key, value, expect } => {
            if let Some(conflict) = check(connection, &key, expect)? {
                return Ok(Some(conflict));
            }
            let text = "insert into kv (key, value, version) values (?1, ?2, ?3) \
                        on conflict (key) do update set value = excluded.value, version = excluded.version";
            connection.prepare_cached(text)?.execute(params![key.as_str(), value, integer(version)])?;
            if keys::is_cached(&key) {
                connection.prepare_cached("delete from tombstone where key = ?1")?.execute([key.as_str()])?;
            }
        }
        Change::Delete { key, expect } => {
            if let Some(conflict) = check(connection, &key, expect)? {
                return Ok(Some(conflict));
            }
            connection.prepare_cached("delete from kv where key = ?1")?.execute([key.as_str()])?;
            if keys::is_cached(&key) {
                let text = "insert into tombstone (key, version) values (?1, ?2) \
                            on conflict (key) do update set version = excluded.version";
                connection.prepare_cached(text)?.execute(params![key.as_str(), integer(version)])?;
            }
        }
        Change::Check { key, expect } => return check(connection, &key, expect),
        Change::Empty { prefix } => {
            let mut statement = connection.prepare_cached("select key from kv where key >= ?1 order by key limit 1")?;
            let first: Option<String> = statement.query_row([prefix.as_str()], |row| row.get(0)).optional()?;
            if first.is_some_and(|key| key.starts_with(prefix.as_str())) {
                return Ok(Some(StorageError::NotEmpty(prefix.as_str().to_owned())));
            }
        }
        Change::NoLeases { token, but } => {
            let mut statement =
                connection.prepare_cached("select 1 from lease where token = ?1 and id <> ?2 limit 1")?;
            if statement.exists([token.as_str(), but.as_str()])? {
                return Ok(Some(StorageError::NotEmpty(token.to_string())));
            }
        }
        Change::Insert(row) => {
            const TEXT: &str = concat!(
                "insert into lease (",
                columns!(),
                ") values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) on conflict (id) do nothing"
            );
            if rows::write(&mut connection.prepare_cached(TEXT)?, &row, &[])? == 0 {
                return Ok(Some(StorageError::Conflict(row.id.to_string())));
            }
        }
        Change::Move { row, from, fence } => {
            let text = "update lease set kind = ?2, state = ?3, next_at = ?4, expires_at = ?5, fence = ?6, holder = ?7, \
                        held_until = ?8, token = ?9, mount = ?10, connection = ?11, \
                        body = case length(?12) when 0 then body else ?12 end \
                        where id = ?1 and state = ?13 and fence = ?14";
            let held = [&from.as_str() as &dyn rusqlite::ToSql, &integer(fence)];
            if rows::write(&mut connection.prepare_cached(text)?, &row, &held)? == 0 {
                return Ok(Some(StorageError::Fenced(row.id)));
            }
        }
        Change::Remove { id, fence } => {
            let mut statement = connection.prepare_cached("delete from lease where id = ?1 and fence = ?2")?;
            if statement.execute(params![id.as_str(), integer(fence)])? == 0 {
                return Ok(Some(StorageError::Fenced(id)));
            }
        }
    }
    Ok(None)
}

fn check(connection: &Connection, key: &Key, expect: Expect) -> rusqlite::Result<Option<StorageError>> {
    if expect == Expect::Anything {
        return Ok(None);
    }
    let mut statement = connection.prepare_cached("select version from kv where key = ?1")?;
    let now: Option<i64> = statement.query_row([key.as_str()], |row| row.get(0)).optional()?;
    let fine = holds(expect, now.map(number));
    Ok((!fine).then(|| StorageError::Conflict(key.as_str().to_owned())))
}

pub(super) fn counter(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached("select value from counter where name = ?1")?;
    statement.query_row([name], |row| row.get(0)).map(number)
}

pub(super) fn set_counter(connection: &Connection, name: &str, value: u64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("update counter set value = ?2 where name = ?1")?;
    statement.execute(params![name, integer(value)]).map(drop)
}

/// Keeps the newest tombstones. Whoever asks for changes since before the newest one that went must read everything again.
fn forget_tombstones(connection: &Connection) -> rusqlite::Result<()> {
    let text = "select version from tombstone order by version desc limit 1 offset ?1";
    let mut statement = connection.prepare_cached(text)?;
    let newest_to_go: Option<i64> =
        statement.query_row([i64::try_from(TOMBSTONES_MAX).unwrap_or(i64::MAX)], |row| row.get(0)).optional()?;
    let Some(version) = newest_to_go else { return Ok(()) };
    connection.prepare_cached("delete from tombstone where version <= ?1")?.execute([version])?;
    set_counter(connection, "horizon", number(version))
}

/// Words such as `commit`, prepared once.
fn run(connection: &Connection, text: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(text)?.execute([]).map(drop)
}

impl Job {
    fn refuse(self, why: &str) {
        match self {
            Self::Commit { reply, .. } => Done::Commit(reply, Ok(())).reply(Some(why)),
            Self::ClaimDue { reply, .. } => Done::ClaimDue(reply, Ok(Vec::new())).reply(Some(why)),
            Self::Claim { reply, .. } => Done::Claim(reply, Ok(None)).reply(Some(why)),
        }
    }
}

impl Done {
    /// A caller that has gone away needs no answer: its batch is written all the same.
    fn reply(self, failed: Option<&str>) {
        let unavailable = || failed.map(|why| StorageError::Unavailable(why.to_owned()));
        match self {
            Self::Commit(reply, result) => drop(reply.send(unavailable().map_or(result, Err))),
            Self::ClaimDue(reply, result) => drop(reply.send(unavailable().map_or(result, Err))),
            Self::Claim(reply, result) => drop(reply.send(unavailable().map_or(result, Err))),
        }
    }
}
