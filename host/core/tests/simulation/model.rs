//! What clients were told, and what follows from it for every server. It knows no store and no server.
//!
//! A change whose answer got lost may have happened or not: then both are right until the next change is answered.

use std::collections::BTreeMap;

use leasehold_core::lease::LeaseRow;
use leasehold_model::{LeaseId, TokenHash};

/// How far a server's idea of the store's time may be from it: half of the longest way there and back, with something to spare.
const CLOCK_ERROR: u64 = 1_000;
/// How long after its end a credential may be there while nothing is in the way.
const LAG_MAX: u64 = 10_000;

/// Something that is so or not, and is changed: whether a policy grants what it is about, whether a mount is there.
#[derive(Default)]
pub struct Grant {
    is_granted: bool,
    /// Changes that may have happened.
    unknown: Vec<bool>,
    /// All changes that were asked for, in order.
    asked: Vec<bool>,
    /// One writer each: its changes come one after another.
    in_flight: Option<bool>,
}

impl Grant {
    fn may_be(&self, granted: bool) -> bool {
        self.is_granted == granted || self.unknown.contains(&granted) || self.in_flight == Some(granted)
    }

    pub fn change_begins(&mut self, granted: bool) {
        self.in_flight = Some(granted);
        self.asked.push(granted);
    }

    pub fn change_ends(&mut self, is_answered: bool) {
        let Some(granted) = self.in_flight.take() else { return };
        if is_answered {
            self.is_granted = granted;
            self.unknown.clear();
        } else {
            self.unknown.push(granted);
        }
    }

    /// What a request may meet that is sent now.
    pub fn ask(&self) -> Seen {
        Seen { may_be: [self.may_be(false), self.may_be(true)], changes: self.asked.len() }
    }

    /// Whether that may have been so at some moment since.
    pub fn might_be(&self, seen: &Seen, granted: bool) -> bool {
        seen.may_be[usize::from(granted)] || self.asked[seen.changes..].contains(&granted)
    }
}

/// How something stood when a request was sent.
pub struct Seen {
    may_be: [bool; 2],
    changes: usize,
}

pub struct Token {
    pub text: String,
    hash: TokenHash,
    /// The policy that it has.
    pub grant: usize,
    parent: Option<usize>,
    must_live_until: u64,
    may_live_until: u64,
    uses: Option<u32>,
    asked: u32,
    used: u32,
    is_end_asked: bool,
    is_end_answered: bool,
}

struct Lease {
    token: usize,
    must_live_until: u64,
    may_live_until: u64,
    is_end_asked: bool,
    /// When somebody was told that it ends.
    end_answered: Option<u64>,
    /// When somebody was told that it is gone.
    gone: Option<u64>,
}

#[derive(Default)]
pub struct Model {
    pub grants: Vec<Grant>,
    pub mounts: Vec<Grant>,
    pub tokens: Vec<Token>,
    leases: BTreeMap<LeaseId, Lease>,
}

/// What a token's request may meet.
pub struct Asked {
    token: usize,
    at: u64,
    seen: Seen,
    had_ended: bool,
}

/// How it ended, for the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    Accepted,
    Denied,
    BadToken,
    /// Whether it was done nobody knows.
    Other,
}

impl Model {
    /// Whether the mount is there, as far as clients know.
    pub fn is_mounted(&self, mount: usize) -> Option<bool> {
        let mount = &self.mounts[mount];
        mount.unknown.is_empty().then_some(mount.is_granted)
    }

    /// Of a token that was asked for at `asked_at` and is handed out now.
    pub fn token_made(
        &mut self,
        (text, hash): (String, TokenHash),
        grant: usize,
        parent: Option<usize>,
        uses: Option<u32>,
        (asked_at, now, ttl): (u64, u64, u64),
    ) {
        self.tokens.push(Token {
            text,
            hash,
            grant,
            parent,
            must_live_until: (asked_at + ttl).saturating_sub(CLOCK_ERROR),
            may_live_until: now + ttl + CLOCK_ERROR,
            uses,
            asked: 0,
            used: 0,
            is_end_asked: false,
            is_end_answered: false,
        });
    }

    fn line(&self, token: usize) -> impl Iterator<Item = &Token> {
        let mut next = Some(token);
        std::iter::from_fn(move || {
            let token = &self.tokens[next?];
            next = token.parent;
            Some(token)
        })
    }

    fn token_must_live(&self, token: usize, now: u64) -> bool {
        self.line(token).all(|token| !token.is_end_asked && now < token.must_live_until)
    }

    /// The last one with this policy that nothing may keep from working.
    pub fn token_that_lives(&self, grant: usize, now: u64) -> Option<usize> {
        let lives = |at: &usize| {
            let token = &self.tokens[*at];
            token.grant == grant && token.uses.is_none() && self.token_must_live(*at, now)
        };
        (0..self.tokens.len()).rev().find(lives)
    }

    pub fn may_have_children(&self, token: usize) -> bool {
        self.tokens[token].uses.is_none()
    }

    pub fn ask(&mut self, token: usize, now: u64) -> Asked {
        self.tokens[token].asked += 1;
        let had_ended = self.line(token).any(|token| token.is_end_answered);
        let seen = self.grants[self.tokens[token].grant].ask();
        Asked { token, at: now, seen, had_ended }
    }

    /// What is wrong with how a request was met.
    pub fn met(&mut self, asked: &Asked, met: Met, now: u64) -> Option<String> {
        let grant = &self.grants[self.tokens[asked.token].grant];
        let may_be_granted = grant.might_be(&asked.seen, true);
        let may_be_refused = grant.might_be(&asked.seen, false);
        // A child lives on until a server has ended its parent, which is late while the store is away.
        let may_live_until = self.tokens[asked.token].may_live_until;
        let must_live = self.token_must_live(asked.token, now);
        let token = &mut self.tokens[asked.token];
        if matches!(met, Met::Accepted | Met::Denied) {
            token.used += 1;
            if token.uses.is_some_and(|uses| token.used > uses) {
                return Some(format!("use {} of {:?} was taken", token.used, token.uses));
            }
        }
        match met {
            Met::Accepted if asked.had_ended => Some("accepted after the end of its token was answered".to_owned()),
            Met::Accepted if asked.at > may_live_until => Some("accepted after its token had expired".to_owned()),
            Met::Accepted if !may_be_granted => Some("accepted after its right had ended".to_owned()),
            Met::Denied if !may_be_refused => Some("denied after its right was granted".to_owned()),
            Met::BadToken if must_live && token.uses.is_none_or(|uses| token.asked < uses) => {
                Some("refused although its token lives".to_owned())
            }
            _ => None,
        }
    }

    pub fn token_end_asked(&mut self, token: usize) {
        self.tokens[token].is_end_asked = true;
    }

    pub fn token_end_answered(&mut self, token: usize, now: u64) {
        self.tokens[token].is_end_answered = true;
        let ended: Vec<bool> = (0..self.tokens.len()).map(|at| self.line(at).any(|of| of.is_end_answered)).collect();
        for lease in self.leases.values_mut().filter(|lease| ended[lease.token]) {
            lease.end_answered.get_or_insert(now);
        }
    }

    /// A lease was handed out.
    pub fn lease_made(&mut self, id: LeaseId, token: usize, (asked_at, now, ttl): (u64, u64, u64)) {
        let end_answered = self.line(token).any(|token| token.is_end_answered).then_some(now);
        let lease = Lease {
            token,
            must_live_until: (asked_at + ttl).saturating_sub(CLOCK_ERROR),
            may_live_until: now + ttl + CLOCK_ERROR,
            is_end_asked: false,
            end_answered,
            gone: None,
        };
        self.leases.insert(id, lease);
    }

    /// A renewal is asked for, which may move the end as far as this, whether or not it is answered.
    pub fn renewal_asked(&mut self, id: &LeaseId, latest: u64) {
        if let Some(lease) = self.leases.get_mut(id) {
            lease.may_live_until = lease.may_live_until.max(latest);
        }
    }

    pub fn renewed(&mut self, id: &LeaseId, (asked_at, now, ttl): (u64, u64, u64)) -> Option<String> {
        let lease = self.leases.get_mut(id)?;
        lease.may_live_until = lease.may_live_until.max(now + ttl + CLOCK_ERROR);
        lease.must_live_until = lease.must_live_until.max((asked_at + ttl).saturating_sub(CLOCK_ERROR));
        lease.gone.is_some_and(|at| at < asked_at).then(|| "renewed after it was said to be gone".to_owned())
    }

    pub fn lease_end_asked(&mut self, id: &LeaseId) {
        if let Some(lease) = self.leases.get_mut(id) {
            lease.is_end_asked = true;
        }
    }

    pub fn lease_end_answered(&mut self, id: &LeaseId, is_gone: bool, now: u64) {
        if let Some(lease) = self.leases.get_mut(id) {
            lease.end_answered.get_or_insert(now);
            if is_gone {
                lease.gone.get_or_insert(now);
            }
        }
    }

    pub fn has_ended(&self, id: &LeaseId) -> bool {
        self.leases.get(id).is_some_and(|lease| lease.gone.is_some())
    }

    /// Why the credential of a lease must work now, if it must.
    pub fn must_live(&self, id: &LeaseId, now: u64) -> Option<String> {
        let lease = self.leases.get(id)?;
        let token = &self.tokens[lease.token];
        let is_used_up = token.uses.is_some_and(|uses| token.asked >= uses);
        let must =
            !lease.is_end_asked && now < lease.must_live_until && self.token_must_live(lease.token, now) && !is_used_up;
        must.then(|| format!("nobody asked for its end, and it was promised until {} ms", lease.must_live_until))
    }

    /// Why the credential of a lease must be gone once everything has come to rest.
    pub fn must_be_gone(&self, id: &LeaseId, now: u64) -> Option<&'static str> {
        let lease = self.leases.get(id)?;
        if lease.end_answered.is_some() {
            return Some("its end was answered");
        }
        let ends = self.line(lease.token).map(|token| token.may_live_until).min().unwrap_or(u64::MAX);
        (now > lease.may_live_until.min(ends) + LAG_MAX).then_some("it has expired")
    }

    /// As [`Model::must_be_gone`], while nothing is in the way.
    pub fn is_overdue(&self, id: &LeaseId, now: u64) -> Option<&'static str> {
        let lease = self.leases.get(id)?;
        let is_late = lease.end_answered.is_none_or(|at| now > at + LAG_MAX);
        self.must_be_gone(id, now).filter(|_| is_late)
    }

    pub fn leases(&self) -> Vec<LeaseId> {
        self.leases.keys().cloned().collect()
    }

    /// Why no lease may begin for a token now, if none may.
    pub fn may_not_begin(&self, row: &LeaseRow) -> Option<&'static str> {
        let token = self.tokens.iter().position(|token| token.hash == row.token)?;
        if self.line(token).any(|token| token.is_end_answered) {
            return Some("the end of its token was answered");
        }
        let grant = &self.grants[self.tokens[token].grant];
        (!grant.may_be(true)).then_some("the end of its right was answered")
    }
}
