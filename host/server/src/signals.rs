//! What an operator tells a server that runs. Heard on a thread of its own: however busy or stuck the server's own
//! threads are, SIGTERM is heard, and it ends the process in bounded time.

use std::process;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Reload,
    /// The first time: finish what is under way. Again: stop at once.
    Stop,
}

/// The signals, in their order.
pub(crate) struct Signals(mpsc::UnboundedReceiver<Told>);

impl Signals {
    /// From here on signals are heard; before, a signal simply ends the program. After the first one to stop the process
    /// has `deadline`, and then ends whatever it does: the storage is as after SIGKILL, which loses nothing.
    ///
    /// # Errors
    /// In words for the operator.
    pub(crate) fn heard(deadline: Duration) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("could not listen for signals: {error}");
        let (tell, told) = mpsc::unbounded_channel();
        let (ready, is_ready) = std_mpsc::channel();
        let hearing = thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error.to_string()))),
            };
            runtime.block_on(hear(&tell, &ready, deadline));
        });
        hearing.map_err(|error| failed(&error))?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(Self(told)),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }

    pub(crate) async fn next(&mut self) -> Told {
        // The thread ends with the process only. Without it nobody could stop us: then we stop.
        self.0.recv().await.unwrap_or(Told::Stop)
    }
}

async fn hear(tell: &mpsc::UnboundedSender<Told>, ready: &std_mpsc::Sender<Result<(), String>>, deadline: Duration) {
    let opened = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (mut terminate, mut interrupt, mut hangup) = match opened {
        (Ok(terminate), Ok(interrupt), Ok(hangup)) => (terminate, interrupt, hangup),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => return drop(ready.send(Err(error.to_string()))),
    };
    let _ = ready.send(Ok(()));
    let mut end = None;
    loop {
        let over = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let told = tokio::select! {
            _ = terminate.recv() => Told::Stop,
            _ = interrupt.recv() => Told::Stop,
            _ = hangup.recv() => Told::Reload,
            () = over => {
                tracing::error!("the server did not stop in time and ends now: what was under way is undone after the next start");
                process::exit(1);
            }
        };
        if told == Told::Stop && end.is_none() {
            end = Some(tokio::time::Instant::now() + deadline);
        } else if told == Told::Stop {
            // Whoever says so twice does not want to wait for anything that is stuck.
            end = Some(tokio::time::Instant::now() + Duration::from_secs(3));
        }
        let _ = tell.send(told);
    }
}
