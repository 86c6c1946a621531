//! Snapshots of what lies beneath: made, authenticated, put back.
//!
//! Values and rows leave as they were sealed, so that a snapshot is of no use without the unseal keys. What the barrier adds is the proof
//! that nothing was left out or exchanged: an HMAC over the digests, under a key that is derived from the ring and outlives rotations.

use std::io::BufReader;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use aws_lc_rs::hmac;
use leasehold_core::keys;
use leasehold_core::seams::snapshot::{
    CheckedSnapshot, Provenance, SnapshotError, SnapshotFacts, SnapshotOrigin, Snapshots, Spool, SpoolReader,
};
use leasehold_core::seams::storage::StorageError;
use leasehold_core::seams::store_copy::{GROUPS_WAITING, Grouping, Piece, Record, WholeStore, cut_short};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::Barrier;
use super::ring::Ring;
use crate::snapshot::writer::{self, StateWriter};
use crate::snapshot::{Meta, OwnMeta, reader};

const BUSY: &str = "another snapshot is being made or restored: try again when that has ended";
/// Snapshots that may be read at once. Each takes as much of the disk as all that is stored.
pub(super) const KEPT_MAX: usize = 2;
const KEPT: &str = "other snapshots are still being read by whoever asked for them: try again when that has ended";
/// What stands before the HMAC in the file.
const SEAL: &str = "leasehold-hmac-sha256 ";
const BUFFER: usize = 256 << 10;

fn key_of(ring: &Ring) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*ring.derive("snapshot").0)
}

fn signed(sums: &[u8]) -> Vec<u8> {
    [b"leasehold snapshot 1\0", sums].concat()
}

fn is_own(ring: &Ring, sums: &str, sealed: &[u8]) -> bool {
    let tag = std::str::from_utf8(sealed).ok().and_then(|text| text.strip_prefix(SEAL)?.strip_suffix('\n'));
    let tag = tag.and_then(|tag| hex::decode(tag).ok());
    tag.is_some_and(|tag| hmac::verify(&key_of(ring), &signed(sums.as_bytes()), &tag).is_ok())
}

/// A task that panicked, or a runtime at its end.
fn ended_early<E>(_: E) -> SnapshotError {
    cut_short().into()
}

/// Everything that the store holds, in a file, and the number of the last change that is in it.
pub(crate) async fn exported(
    store: &dyn WholeStore,
    mut state: StateWriter,
) -> Result<(StateWriter, u64), SnapshotError> {
    let (groups, mut waiting) = mpsc::channel(GROUPS_WAITING);
    let writing = spawn_blocking(move || {
        while let Some(group) = waiting.blocking_recv() {
            for record in &group {
                state.put(record)?;
            }
        }
        Ok::<_, SnapshotError>(state)
    });
    let number = store.export(groups).await;
    // Why writing stopped says more than that nobody took the rest.
    let state = writing.await.map_err(ended_early)??;
    Ok((state, number?))
}

#[async_trait]
impl Snapshots for Barrier {
    async fn save(&self, origin: SnapshotOrigin) -> Result<Arc<Spool>, SnapshotError> {
        self.ring()?;
        let _turn = self.copying.try_acquire().map_err(|_| SnapshotError::Busy(BUSY))?;
        let place = Arc::clone(&self.kept).try_acquire_owned().map_err(|_| SnapshotError::Busy(KEPT))?;
        let (state, index) = exported(&*self.inner, StateWriter::to_file()?).await?;
        let ring = self.ring()?;
        let (term, _) = ring.term();
        let made_at = u64::try_from(origin.made_at.as_secs()).unwrap_or_default();
        let meta = Meta {
            version: 1,
            id: format!("leasehold-{index}-{}", origin.made_at.as_nanos() / 1_000_000),
            index,
            term: u64::from(term),
            configuration: crate::snapshot::Servers::default(),
            configuration_index: 0,
            size: state.len,
            own: OwnMeta {
                format: 1,
                cluster_id: origin.cluster_id,
                cluster_name: origin.cluster_name,
                server: origin.version,
                storage_type: origin.storage_type,
                made_at: origin.made_at.rfc3339(),
                values: state.values,
                leases: state.leases,
            },
        };
        let seal = move |sums: &[u8]| {
            let tag = hmac::sign(&key_of(&ring), &signed(sums));
            format!("{SEAL}{}\n", hex::encode(tag.as_ref())).into_bytes()
        };
        let made = spawn_blocking(move || writer::finish(state, &meta, made_at, seal)).await;
        Ok(Arc::new(made.map_err(ended_early)??.in_place(place)))
    }

    async fn check(&self, spool: Arc<Spool>, from: Provenance) -> Result<CheckedSnapshot, SnapshotError> {
        let source = SpoolReader::new(Arc::clone(&spool));
        let reading = move || {
            let (mut keyring, mut seal) = (false, false);
            let contents = reader::read(BufReader::with_capacity(BUFFER, source), |record| match record {
                Record::Value { key, .. } if key == keys::unfinished() => {
                    Err(SnapshotError::Damaged("it is of a store that is not whole".to_owned()))
                }
                Record::Value { key, .. } => {
                    keyring |= key == keys::keyring();
                    seal |= key == keys::seal();
                    Ok(())
                }
                Record::Lease(_) => Ok(()),
            })?;
            // Without them the server would take the store for a new one, which anybody may initialise.
            match keyring && seal {
                true => Ok(contents),
                false => Err(SnapshotError::Damaged("it has no keys".to_owned())),
            }
        };
        let contents = spawn_blocking(reading).await.map_err(ended_early)??;
        let ring = self.ring()?;
        if from == Provenance::OwnOnly && !is_own(&ring, &contents.sums, &contents.sealed) {
            return Err(SnapshotError::Foreign);
        }
        let facts = SnapshotFacts {
            id: contents.meta.id,
            cluster_id: contents.meta.own.cluster_id,
            values: contents.meta.own.values,
            leases: contents.meta.own.leases,
        };
        Ok(CheckedSnapshot { spool, facts, digest: contents.digest })
    }

    async fn restore(&self, snapshot: CheckedSnapshot) -> Result<(), SnapshotError> {
        let _turn = self.copying.try_acquire().map_err(|_| SnapshotError::Busy(BUSY))?;
        {
            // The lock is not kept: whoever asks how the server is must not wait for it.
            let mut unsealing = self.unsealing.lock().await;
            drop(unsealing.take());
            self.take_fetched();
            unsealing.is_restoring = true;
            self.set_ring(None);
        }
        let replaced = self.inner.replace(pieces_of(snapshot)).await;
        // How the root key is split is the snapshot's from here on. Where the outcome is not known, it is read again, too.
        self.forget_config();
        self.sealed_values.store(0, Ordering::Relaxed);
        self.unsealing.lock().await.is_restoring = false;
        Ok(replaced?)
    }
}

/// The records of a snapshot; without an end unless they are those that were checked.
fn pieces_of(snapshot: CheckedSnapshot) -> mpsc::Receiver<Piece> {
    let (pieces, receiver) = mpsc::channel(GROUPS_WAITING);
    spawn_blocking(move || {
        let source = SpoolReader::new(snapshot.spool);
        let mut grouping = Grouping::default();
        let gone = |_| SnapshotError::Storage(cut_short());
        let read = reader::read(BufReader::with_capacity(BUFFER, source), |record| {
            // What was ended or finished since must not go on with the shares that were given then.
            if matches!(&record, Record::Value { key, .. } if keys::is_attempt(key)) {
                return Ok(());
            }
            match grouping.add(record) {
                Some(group) => pieces.blocking_send(Piece::Records(group)).map_err(gone),
                None => Ok(()),
            }
        });
        match read {
            Ok(contents) if contents.digest == snapshot.digest => {
                let sent = pieces.blocking_send(Piece::Records(grouping.rest()));
                if sent.is_ok() {
                    // Whoever does not take it has ended already.
                    let _ = pieces.blocking_send(Piece::End);
                }
            }
            Ok(_) => tracing::error!("the snapshot changed between its check and its use: nothing was restored"),
            Err(SnapshotError::Storage(StorageError::Unavailable(_))) => {}
            Err(error) => tracing::error!(%error, "the snapshot could not be read again: nothing was restored"),
        }
    });
    receiver
}
