//! The program `leasehold`: server and client in one.

fn main() -> std::process::ExitCode {
    leasehold_server::main_with_args(std::env::args_os().collect())
}
