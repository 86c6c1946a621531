//! The server as the tests run it: the same main, with the crash ring's fail points compiled in.

use std::process::ExitCode;

// Named for its feature `fail-points`, which this package turns on.
use leasehold_core as _;

fn main() -> ExitCode {
    leasehold_server::main_with_args(std::env::args_os().collect())
}
