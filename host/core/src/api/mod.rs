//! How requests are answered.
//!
//! Must not know: HTTP.
//!
//! Start with [`pipeline`]: the one function that every request takes.
//! It asks [`backend`] who serves a path, and [`trace`] carries what audit and the log say of a request.
//! [`call`] is what a handler of the server's own routes is given, and [`login`] is what a login becomes.
//! The routes of `sys/`, `auth/token/`, `cubbyhole/` and `identity/` stand in [`sys`], [`token`], [`cubbyhole`] and [`identity`].
//! [`existence`] tells a write that creates from one that changes.
//! [`secrets`] asks an engine, and has what it plans leased.
//! [`wrap`] puts a wrapping token in the place of an answer.
//! [`control_group`] has a request wait for approval, and carries it out.
//! [`rate`] counts requests before anybody looks at their token.
//! [`undelivered`] takes back what a client never got.

mod backend;
pub(crate) mod call;
mod control_group;
mod cubbyhole;
mod existence;
mod identity;
pub(crate) mod login;
mod pages;
pub mod pipeline;
mod rate;
mod secrets;
pub mod sys;
pub mod token;
mod trace;
pub(crate) mod undelivered;
mod wrap;
