//! The compiling child process alone, for tests: the server calls the same function in a hidden subcommand.

fn main() {
    std::process::exit(leasehold_sandbox::compile_worker());
}
