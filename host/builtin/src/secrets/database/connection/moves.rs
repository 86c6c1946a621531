//! Whether a write may lead a connection to another place, in another way or as another user.
//!
//! Must not know: how a connection is opened.
//!
//! Start with [`ConnectionRecord::check_move`].
//!
//! Invariants: a stored password is sent only where, how and as whom it was given for, however many writes somebody makes.
//! A connection moves only for somebody who shows that they know its password and its private key, or who holds `sudo` on its path and
//! brings another login.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use leasehold_core::fields::Fields;
use leasehold_core::seams::error::RequestError;
use secrecy::{ExposeSecret, SecretString};

use super::client_certificate::brought_key;
use super::{ConnectionRecord, Dsn, creating, dsn};

const BRING_PASSWORD: &str = "this write has the stored password sent to another place or in another way (host, port, database, user, \
     sslmode, tls_ca or another setting of TLS or login): send password again with it. If nobody knows the password any more, \
     somebody with sudo on this path can send username and password of another admin";
const BRING_USERNAME: &str = "this write leads the connection elsewhere with another password than the stored one: with sudo on this \
     path, send username and password together";
const NEEDS_SUDO: &str = "this write leads the connection elsewhere (host, port, database, user, sslmode, tls_ca or another setting of \
     TLS or login) without the stored password: send the stored password with it. If nobody knows it any more, somebody with sudo on \
     this path can send username and password of another admin";
const UNPROVED: &str = "this write leads the connection elsewhere, and its password was written without sudo and without being tried \
     on the database: first write the password with verify_connection=true where the connection leads now. If nobody knows it any \
     more, somebody with sudo on this path can send username and password of another admin";
const BRING_KEY: &str = "this write has the stored client certificate shown at another place or in another way (host, port, database, user, \
     sslmode, tls_ca or another setting of TLS or login): send private_key again with it. If nobody has the key any more, somebody with \
     sudo on this path can send another tls_certificate and private_key";
const KEY_NEEDS_SUDO: &str = "this write leads the connection elsewhere without the stored private_key: send that key with it. If nobody \
     has it any more, somebody with sudo on this path can send another tls_certificate and private_key";
const UNPROVED_KEY: &str = "this write leads the connection elsewhere, and its private_key was replaced without sudo: somebody with sudo on \
     this path must write private_key first";

/// The password as it would be sent; a stored one that the URL does not use at present counts too.
fn held_password(record: &ConnectionRecord) -> Option<SecretString> {
    let is_there = |text: &SecretString| !text.expose_secret().is_empty();
    // An empty one in the URL hides the stored one from a login, not from the next write.
    let sent = record.dsn().ok().and_then(|dsn| dsn.password).filter(is_there);
    sent.or_else(|| Some(record.password.clone()).filter(is_there))
}

impl ConnectionRecord {
    /// Compares the record with what it was `before` the write.
    ///
    /// # Errors
    /// 400 when the write lacks something, 403 when it takes `sudo`.
    pub(super) fn check_move(
        &mut self,
        before: &Self,
        dsn: &Dsn,
        fields: &Fields,
        has_sudo: bool,
    ) -> Result<(), RequestError> {
        let is_new = before.connection_url.expose_secret().is_empty();
        let is_same_way = before.leads_as(self);
        self.check_key_move(before, fields, has_sudo, is_new, is_same_way)?;
        if !is_same_way {
            // They were for the place where it led before.
            self.rotation.forget_passwords();
        }
        let Some(held) = held_password(before).filter(|_| !is_new) else {
            // There is no password that could go elsewhere. But one that was emptied without sudo stands for what was there.
            self.is_password_unproved = !is_new && before.is_password_unproved && !has_sudo;
            if self.is_password_unproved && !is_same_way {
                return Err(RequestError::Forbidden(creating(UNPROVED)));
            }
            return Ok(());
        };
        let is_same_password = dsn.password.as_ref().is_some_and(|password| is_same(password, &held));
        if is_same_way {
            self.is_password_unproved = if is_same_password { before.is_password_unproved } else { !has_sudo };
            return Ok(());
        }
        let url = self.connection_url.expose_secret();
        let uses = |tag: &str| url.contains(tag);
        let brings = |name: &str, tag: &str| fields.text(if uses(tag) { name } else { "connection_url" }).is_some();
        let brings_password = brings("password", dsn::PASSWORD_TAG);
        let brings_username = brings("username", dsn::USERNAME_TAG);
        match &dsn.password {
            Some(_) if !brings_password => return Err(RequestError::Invalid(creating(BRING_PASSWORD))),
            Some(_) if is_same_password && (has_sudo || !before.is_password_unproved) => {}
            Some(_) if is_same_password => return Err(RequestError::Forbidden(creating(UNPROVED))),
            _ if !has_sudo => return Err(RequestError::Forbidden(creating(NEEDS_SUDO))),
            // Also where the new URL uses no password: what the old one had in its text must not end up in another part.
            _ if !brings_username || !brings_password => return Err(RequestError::Invalid(creating(BRING_USERNAME))),
            _ => {}
        }
        let is_kept_unused = !uses(dsn::PASSWORD_TAG) && fields.text("password").is_none();
        if is_kept_unused {
            // It would lie in wait for a URL that has it sent to the new place.
            self.password = SecretString::default();
        }
        self.is_password_unproved = false;
        Ok(())
    }

    /// The same for the private key, which never leaves, but logs in wherever it is used. Unlike a password it cannot be proved: a server
    /// may take the certificates of many.
    fn check_key_move(
        &mut self,
        before: &Self,
        fields: &Fields,
        has_sudo: bool,
        is_new: bool,
        is_same_way: bool,
    ) -> Result<(), RequestError> {
        let has_key = !before.private_key.expose_secret().is_empty();
        if is_new || (!has_key && !before.is_key_unproved) {
            self.is_key_unproved = false;
            return Ok(());
        }
        let (is_brought, is_same_key) =
            (brought_key(fields).is_some(), is_same(&self.private_key, &before.private_key));
        if is_same_way {
            self.is_key_unproved = !(has_sudo && is_brought) && (before.is_key_unproved || !is_same_key);
            return Ok(());
        }
        let forbidden = |why: &str| Err(RequestError::Forbidden(creating(why)));
        match has_key {
            true if !is_brought => return Err(RequestError::Invalid(creating(BRING_KEY))),
            _ if has_sudo => {}
            _ if before.is_key_unproved => return forbidden(UNPROVED_KEY),
            _ if !is_same_key => return forbidden(KEY_NEEDS_SUDO),
            _ => {}
        }
        self.is_key_unproved = false;
        Ok(())
    }

    /// Whether both have a password sent to the same place, in the same way and as the same user.
    pub(in super::super) fn leads_as(&self, other: &Self) -> bool {
        let (Ok(one), Ok(two)) = (self.dsn(), other.dsn()) else { return false };
        one.travel() == two.travel() && self.inline_tls().roots == other.inline_tls().roots
    }

    /// Tells where and how the connection has passwords sent, whosever they are: the same text for the same way, over versions.
    pub(in super::super) fn place(&self) -> Option<String> {
        let place = self.dsn().ok()?.place();
        let whole = format!("{place}\0{}", self.inline_tls().roots.unwrap_or_default());
        Some(hex::encode(digest::digest(&digest::SHA256, whole.as_bytes())))
    }

    /// What tells the server from every other, where the connection leads now; `None` while it has not said so there.
    pub(in super::super) fn server_here(&self) -> Option<&str> {
        let is_there = self.server_place.is_none() || self.server_place == self.place();
        self.server.as_deref().filter(|_| is_there)
    }

    /// The server has said what tells it from every other.
    pub(in super::super) fn told_server(&mut self, server: Option<String>) {
        self.server = server;
        self.server_place = self.place();
    }

    /// The database took the password at the place where the connection leads.
    pub(in super::super) fn prove_password(&mut self) {
        self.is_password_unproved = false;
    }
}

fn is_same(one: &SecretString, other: &SecretString) -> bool {
    verify_slices_are_equal(one.expose_secret().as_bytes(), other.expose_secret().as_bytes()).is_ok()
}
