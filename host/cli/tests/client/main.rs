//! The client against a responder in this process: what it sends, what it prints, how it ends.
//!
//! [`recorded`] replays what OpenBao 2.7.2's own client sent and printed; [`by_hand`] holds what that client does not do
//! or no recording can show. Start with [`responder`].

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

mod by_hand;
mod completion;
mod recorded;
mod responder;
