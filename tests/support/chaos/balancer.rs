//! haproxy before the servers, as an operator would set it up: it asks each for its health, and tries no request twice.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};

use tempfile::TempDir;

use super::network::{Network, find};
use super::plan::Place;

const PORT: u16 = 8_200;

/// A running haproxy. Dropping it ends it.
#[derive(Debug)]
pub struct Balancer {
    child: Child,
    _home: TempDir,
    pub address: String,
}

impl Balancer {
    pub fn start(network: &Network, nodes: &[String]) -> Self {
        let home = tempfile::tempdir().expect("a directory can be made");
        let address = format!("{}:{PORT}", network.address(Place::Balancer));
        let mut settings = format!(
            "defaults\n  mode http\n  timeout connect 1s\n  timeout client 90s\n  timeout server 90s\n  retries 0\n\
             frontend vault\n  bind {address}\n  default_backend nodes\n\
             backend nodes\n  balance roundrobin\n  option httpchk GET /v1/sys/health\n"
        );
        for (at, node) in nodes.iter().enumerate() {
            let _ = writeln!(settings, "  server node{at} {node} check inter 500ms fall 2 rise 1");
        }
        let file = home.path().join("haproxy.cfg");
        fs::write(&file, settings).expect("a configuration can be written");
        let haproxy = find("haproxy").expect("haproxy is installed");
        let mut command = network.command(Place::Balancer, &haproxy);
        command.arg("-db").arg("-f").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.process_group(0).spawn().expect("haproxy can be started");
        Self { child, _home: home, address }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
