//! The TLS side of every client of ours: which server certificates are trusted, and for which names. And the certificates of clients that
//! come to us: what they say, and who vouches for them.
//!
//! Must not know: PostgreSQL, HTTP, configuration. It gets certificates in PEM form and says what a peer proved.
//!
//! Start with [`ServerVerifier`]; `certificate` reads the few parts of an X.509 certificate that rustls does not tell, `names`
//! compares a certificate's names with a host, `client` judges clients, `possession` has either of them prove that its key is its own, `roots` reads PEM text and finds the system's bundle.
//!
//! Invariants: no byte that a peer sends makes this crate panic. [`Proof::None`] still checks that the peer holds the private key of the
//! certificate that it showed. Everything that is not understood is refused.

mod certificate;
mod client;
mod config;
mod names;
mod possession;
mod roots;
mod verifier;

pub use client::{AnyClient, ClientFacts, RevocationList, client_facts, verify_client, vouches_for_none};
pub use config::{ClientIdentity, Versions, client_config, identity};
pub use names::NameRule;
pub use roots::{PemError, SYSTEM_BUNDLES, certificates, public_key, system_bundle, validity};
pub use verifier::{Proof, ServerVerifier, end_point};
