//! What a service manager is told: readiness (sd_notify), and the process id in a file.

use std::fs;
use std::path::{Path, PathBuf};

use sd_notify::NotifyState;

/// Tells systemd, if it started us with `Type=notify` or `notify-reload`. What goes wrong costs a line of log.
pub(crate) async fn notify(state: State) {
    // A socket whose other end does not read must not stop anything.
    let told = tokio::task::spawn_blocking(move || match state {
        State::Ready => sd_notify::notify(&[NotifyState::Ready]),
        State::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        // `Type=notify-reload` wants to know when, too.
        State::Reloading => {
            NotifyState::monotonic_usec_now().and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now]))
        }
    });
    match tokio::time::timeout(std::time::Duration::from_secs(1), told).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the service manager could not be told about {state:?}"),
        Ok(Err(_)) | Err(_) => tracing::warn!("the service manager did not listen about {state:?}"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    Reloading,
    Stopping,
}

/// The file with our process id; removed when dropped, unless another process has written its own into it.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// # Errors
    /// In words for the operator.
    pub(crate) fn write(path: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("could not write `pid_file` {}: {error}", path.display());
        // By rename: who reads it must never find half a number. Nothing that is there is followed or kept open.
        let beside = path.with_extension(format!("new-{}", std::process::id()));
        fs::write(&beside, format!("{}\n", std::process::id())).map_err(failed)?;
        fs::rename(&beside, path).map_err(|error| {
            let _ = fs::remove_file(&beside);
            failed(error)
        })?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let ours = std::process::id().to_string();
        if fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == ours) {
            let _ = fs::remove_file(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_process_id_is_taken_away() {
        let path = std::env::temp_dir().join(format!("leasehold-{}.pid", std::process::id()));
        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists(), "it is another's now");
        fs::remove_file(&path).unwrap();
        assert!(PidFile::write(Path::new("/nowhere/x.pid")).unwrap_err().contains("pid_file"));
    }
}
