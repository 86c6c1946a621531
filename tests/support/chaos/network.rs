//! A network of namespaces on one machine: a bridge, and a namespace for each process. Packets between any two can be dropped.
//!
//! It is made by [`enter`], which runs this program again in namespaces of its own for network, mounts and processes. Nothing of it is
//! left when that ends, whichever way it ends, and nothing of the machine's own network is touched.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::plan::Place;

/// Says that this process is the one in the namespaces.
const INSIDE: &str = "LEASEHOLD_CHAOS_INSIDE";
const NAMESPACES: &str = "/run/netns";
/// What each namespace drops: packets from the addresses in the set.
const RULES: &str = "table ip chaos {\n  set cut {\n    type ipv4_addr\n  }\n  chain in {\n    type filter hook input priority 0\n    \
                     ip saddr @cut drop\n  }\n}\n";

/// Runs this program again in namespaces of its own, unless it is there already. Returns only inside.
///
/// # Errors
/// What this machine lacks.
pub fn enter() -> Result<(), String> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    for (program, package) in [
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("ip", "iproute2"),
        ("nft", "nftables"),
        ("haproxy", "haproxy"),
    ] {
        if find(program).is_none() {
            return Err(format!(
                "`{program}` is not installed (Debian's package {package}): host/xtask/bootstrap.sh chaos installs it"
            ));
        }
    }
    let own = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let tried = Command::new("unshare").args(own).arg("true").output().map_err(|error| error.to_string())?;
    if !tried.status.success() {
        let why = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
        return Err(format!("network namespaces cannot be made here, which needs root: {why}"));
    }
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut again = Command::new("unshare");
    // The first process of a namespace must collect the dead that have lost their parent, which a shell does: Patroni takes a
    // postmaster that nobody has collected for one that runs.
    again.args(own).args(["/bin/sh", "-c", "\"$0\" \"$@\"; exit $?"]);
    Err(again.arg(this).args(std::env::args_os().skip(1)).env(INSIDE, "1").exec().to_string())
}

/// Where a program is installed; those of the system are not on everybody's PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// The network.
#[derive(Debug)]
pub struct Network;

impl Network {
    /// Makes the bridge and these namespaces. This process stands at the bridge.
    pub fn make(places: &[Place]) -> Self {
        std::fs::create_dir_all(NAMESPACES).expect("a directory can be made");
        must("mount", &["-t", "tmpfs", "none", NAMESPACES]);
        // What libfaketime leaves there when its process is killed.
        must("mount", &["-t", "tmpfs", "none", "/dev/shm"]);
        must("ip", &["link", "set", "lo", "up"]);
        must("ip", &["link", "add", "bridge", "type", "bridge"]);
        must("ip", &["addr", "add", "10.99.0.1/24", "dev", "bridge"]);
        must("ip", &["link", "set", "bridge", "up"]);
        let network = Self;
        for &place in places {
            let name = place.to_string();
            let address = format!("{}/24", network.address(place));
            must("ip", &["netns", "add", &name]);
            must("ip", &["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &name]);
            must("ip", &["link", "set", &name, "master", "bridge", "up"]);
            must("ip", &["-n", &name, "addr", "add", &address, "dev", "eth0"]);
            must("ip", &["-n", &name, "link", "set", "lo", "up"]);
            must("ip", &["-n", &name, "link", "set", "eth0", "up"]);
            network.nft(place, RULES);
        }
        network
    }

    pub fn address(&self, place: Place) -> Ipv4Addr {
        let last = match place {
            Place::Node(at) => 11 + at,
            Place::Store(at) => 21 + at,
            Place::Target => 31,
            Place::Balancer => 41,
            Place::Witness => 51,
        };
        Ipv4Addr::new(10, 99, 0, u8::try_from(last).expect("a small number"))
    }

    pub fn namespace(&self, place: Place) -> PathBuf {
        Path::new(NAMESPACES).join(place.to_string())
    }

    /// A program that will run in the namespace of this place, with its own process id.
    pub fn command(&self, place: Place, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace(place).display())).arg("--").arg(program);
        command
    }

    /// Drops every packet between the two from now on, or lets them pass again.
    pub fn cut(&self, one: Place, other: Place, is_cut: bool) {
        let verb = if is_cut { "add" } else { "delete" };
        for (here, there) in [(one, other), (other, one)] {
            self.nft(here, &format!("{verb} element ip chaos cut {{ {} }}\n", self.address(there)));
        }
    }

    fn nft(&self, place: Place, rules: &str) {
        let nft = find("nft").expect("nft is installed");
        let status = self.command(place, &nft).arg(rules).status().expect("nft can be run");
        assert!(status.success(), "nft {rules}: {status}");
    }
}

fn must(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
