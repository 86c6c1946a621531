//! The one way in which this project locks what threads share: locks that a panic does not poison.
//!
//! Must not know: what is locked.
//!
//! The standard library's locks answer with an error once a thread panicked while it held them. Reading that error as "nothing is
//! there" turns one panic into "no such policy" for everybody, until a restart; passing it on turns one failed request into all of
//! them. So these locks hand out what they hold, and the rule for whoever changes it is: in single steps, each of which leaves it
//! whole (an insertion, a removal, a replacement), and with nothing that may panic in between.

use std::fmt;
use std::sync::{MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};

/// A mutual exclusion lock.
#[derive(Default)]
pub struct Mutex<T: ?Sized>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// What it held.
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for its turn. Never hold the guard across an `.await`.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> fmt::Debug for Mutex<T> {
    /// Without what it holds, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

/// A lock that many readers or one writer hold.
#[derive(Default)]
pub struct RwLock<T: ?Sized>(std::sync::RwLock<T>);

impl<T> RwLock<T> {
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(std::sync::RwLock::new(value))
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits for the writer, if there is one. Never hold the guard across an `.await`.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for everybody else. Never hold the guard across an `.await`.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> fmt::Debug for RwLock<T> {
    /// Without what it holds, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RwLock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_one_holder_shuts_nobody_else_out() {
        let (mutex, lock) = (Mutex::new(1), RwLock::new(1));
        std::thread::scope(|scope| {
            let holder = scope.spawn(|| {
                let (_held, _written) = (mutex.lock(), lock.write());
                panic!("while both are held");
            });
            assert!(holder.join().is_err());
        });
        *mutex.lock() += 1;
        *lock.write() += 1;
        assert_eq!((*mutex.lock(), *lock.read()), (2, 2));
        assert_eq!(mutex.into_inner(), 2);
    }

    #[test]
    fn what_is_locked_never_shows_in_debug_output() {
        let shown = format!("{:?} {:?}", Mutex::new("hvs.super-secret"), RwLock::new("hvs.super-secret"));
        assert!(!shown.contains("super-secret"), "{shown}");
    }
}
