//! Chaos: three servers, their store and a target are killed, paused and cut off from each other, while clients work with them.
//! What the clients were told, what the store holds and what the target holds is then checked for contradictions.
//!
//! Must not know: any crate of the server. A violation is something that a client or an operator could have seen.
//!
//! Start with [`checker`] (which rules there are), then [`history`] (what is recorded), [`plan`] (what is done to whom), [`world`]
//! (the processes), [`clients`], and [`round`], which puts them together. `make chaos` runs a long round in network namespaces,
//! `make test` a short one on the loopback interface.
//!
//! Invariants: an outcome that a client does not know counts as "may have happened, or may happen later". The plan follows from its
//! seed alone; what the schedulers of the machine make of it does not, so a seed brings back the faults but not the history.

pub mod balancer;
pub mod checker;
pub mod clients;
pub mod clock;
pub mod history;
pub mod network;
pub mod observer;
pub mod patroni;
pub mod plan;
pub mod report;
pub mod round;
pub mod world;
