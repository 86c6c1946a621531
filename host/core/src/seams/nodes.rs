//! What the servers over one store say of themselves, and hear of each other, through it.

use leasehold_model::Timestamp;

/// What one server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Random; another one for each start of a process.
    pub id: String,
    /// For people: the host's name, as a rule.
    pub name: String,
    /// Where clients reach it.
    pub address: String,
    /// A semantic version.
    pub version: String,
    /// The number of the last change that everything reflects from which this server decides. `None`: it decides nothing, because it
    /// is sealed or still reads.
    pub applied: Option<u64>,
}

/// One server, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub report: NodeReport,
    /// Another number than before: it has been heard of since.
    pub beat: u64,
    /// By the store's clock.
    pub heard_at: Timestamp,
    /// By the store's clock.
    pub joined_at: Timestamp,
}

/// What a server hears when it reports.
#[derive(Clone, Debug)]
pub struct Attendance {
    /// The number of the last change under the cached prefix, read after the report was stored.
    pub changed: u64,
    /// By the store's clock.
    pub now: Timestamp,
    /// All servers, this one among them, read after the number.
    pub nodes: Vec<Node>,
}
