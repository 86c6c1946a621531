//! One run of the server process: start, wait until it answers, stop, freeze.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::{Error, Network, home::Home, identity::Identity, programs::Programs};

/// A saturated machine needs seconds where an idle one needs 50 ms.
const START_WAIT: Duration = Duration::from_secs(60);
/// After this the server is killed: a fast shutdown checkpoints, which takes no longer on a small database.
const STOP_WAIT: Duration = Duration::from_secs(20);
/// A killed process is gone at once, unless nobody collects the dead here.
const CLEAR_WAIT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Where a server runs.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) network: Option<Network>,
    pub(crate) environment: Vec<(String, String)>,
}

/// How to stop the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, the data is written (SIGINT).
    Fast,
    /// Everything ends at once; the next start recovers (SIGQUIT).
    Immediate,
    /// As a power cut: server and sessions are killed (SIGKILL).
    Kill,
}

/// A server that answered once. Dropping it does not end it: [`Process::stop`] does.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    paused: bool,
}

impl Process {
    /// Starts the server with these settings and waits until it takes connections.
    pub(crate) fn start(
        programs: &Programs,
        identity: &Identity,
        home: &Home,
        settings: &[(String, String)],
        place: &Place,
    ) -> Result<Self, Error> {
        let log = OpenOptions::new().create(true).append(true).open(home.log());
        let log: File = log.map_err(Error::io("open the server's log"))?;
        let mut command = match &place.network {
            Some(network) => identity.command_in(&network.namespace, &place.environment, &programs.postgres()),
            None => {
                let mut command = identity.command(&programs.postgres());
                command.envs(place.environment.iter().cloned());
                command
            }
        };
        command.arg("-D").arg(home.data());
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(Error::io("open the server's log"))?)
            .stderr(log)
            // Ctrl-C goes to the owner's process group; the owner decides when the server ends.
            .process_group(0)
            .spawn()
            .map_err(Error::io("start `postgres`"))?;
        let mut process = Self { child, paused: false };
        match process.wait_until_ready(&home.data().join("postmaster.pid")) {
            Ok(()) => Ok(process),
            Err(reason) => {
                process.stop(Stop::Kill)?;
                Err(Error::DidNotStart { reason, log: tail(&home.log()) })
            }
        }
    }

    fn wait_until_ready(&mut self, file: &Path) -> Result<(), String> {
        let own = self.child.id().to_string();
        let began = Instant::now();
        loop {
            // The first line is the process id: a server that was killed has left its file behind. The eighth is the
            // state: `starting`, then `ready`.
            let text = fs::read_to_string(file).unwrap_or_default();
            let mut lines = text.lines().map(str::trim);
            if lines.next() == Some(&own) && lines.nth(6) == Some("ready") {
                return Ok(());
            }
            match self.child.try_wait() {
                Ok(None) if began.elapsed() < START_WAIT => thread::sleep(POLL_INTERVAL),
                Ok(None) => return Err(format!("not ready after {} s", START_WAIT.as_secs())),
                Ok(Some(status)) => return Err(format!("it ended with {status}")),
                Err(error) => return Err(format!("could not look at the process: {error}")),
            }
        }
    }

    /// Stops the server and waits until it is gone, its sessions included.
    pub(crate) fn stop(&mut self, how: Stop) -> Result<(), Error> {
        if self.paused {
            self.resume()?;
        }
        match how {
            Stop::Fast => self.signal_server(Signal::INT)?,
            Stop::Immediate => self.signal_server(Signal::QUIT)?,
            Stop::Kill => return self.kill(),
        }
        let began = Instant::now();
        while began.elapsed() < STOP_WAIT {
            if self.child.try_wait().map_err(Error::io("wait for the server"))?.is_some() {
                return Ok(());
            }
            thread::sleep(POLL_INTERVAL);
        }
        self.kill()
    }

    /// The sessions go first: a session that outlived the server would keep its shared memory and block the next start.
    fn kill(&mut self) -> Result<(), Error> {
        self.signal_server(Signal::STOP)?;
        let sessions = self.sessions();
        for session in &sessions {
            let _ = kill_process(*session, Signal::KILL);
        }
        self.child.kill().map_err(Error::io("kill the server"))?;
        self.child.wait().map_err(Error::io("wait for the server"))?;
        // They are not our children, so all we can do is look until the system has cleared them away.
        let began = Instant::now();
        while began.elapsed() < CLEAR_WAIT && sessions.iter().any(|session| test_kill_process(*session).is_ok()) {
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Freezes the server with all its sessions: it still accepts connections, but nothing answers.
    pub(crate) fn pause(&mut self) -> Result<(), Error> {
        // The server first, so that it starts no session behind our back.
        self.signal_server(Signal::STOP)?;
        self.paused = true;
        for session in self.sessions() {
            let _ = kill_process(session, Signal::STOP);
        }
        Ok(())
    }

    /// Ends a [`Process::pause`].
    pub(crate) fn resume(&mut self) -> Result<(), Error> {
        for session in self.sessions() {
            let _ = kill_process(session, Signal::CONT);
        }
        self.paused = false;
        self.signal_server(Signal::CONT)
    }

    /// The process id of the server.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    /// Signals the server, unless it has ended: its id could be another's by then, but is kept until we wait for it.
    fn signal_server(&mut self, signal: Signal) -> Result<(), Error> {
        if self.child.try_wait().map_err(Error::io("wait for the server"))?.is_some() {
            return Ok(());
        }
        let Some(pid) = self.pid() else { return Ok(()) };
        kill_process(pid, signal).map_err(|errno| Error::io("signal the server")(errno.into()))
    }

    /// The server's children. Each is the leader of a process group of its own, so there is no group to signal.
    fn sessions(&self) -> Vec<Pid> {
        let of_process = |(pid, parent): (i32, u32)| (parent == self.child.id()).then(|| Pid::from_raw(pid)).flatten();
        processes().into_iter().filter_map(of_process).collect()
    }
}

/// Every process with its parent, from `/proc` or, where there is none, from `ps`.
fn processes() -> Vec<(i32, u32)> {
    let Ok(entries) = fs::read_dir("/proc") else { return processes_by_ps() };
    let found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // `pid (name) state parent …`; a name may hold blanks and parentheses.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    if found.is_empty() { processes_by_ps() } else { found }
}

fn processes_by_ps() -> Vec<(i32, u32)> {
    let Ok(output) = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        })
        .collect()
}

/// The last lines of the log, for an error message.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
}
