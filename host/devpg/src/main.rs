//! A private PostgreSQL to play with: starts one, prints how to reach it, and removes it at the end of standard input or
//! at Ctrl-C.

use std::{
    io::{self, Read as _, Write as _},
    process::ExitCode,
};

use leasehold_devpg::{DevPg, Options};

fn main() -> ExitCode {
    if let Some(word) = std::env::args().nth(1) {
        let is_help = ["-h", "-help", "--help"].contains(&word.as_str());
        println!(
            "Usage: leasehold-devpg\n\nStarts a private PostgreSQL, prints how to reach it, and removes it at Ctrl-C. It takes no arguments."
        );
        return if is_help { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            if let Some(cause) = error.source() {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let server = DevPg::start(Options::default())?;
    let mut out = io::stdout();
    writeln!(out, "admin      {}", server.admin_url())?;
    writeln!(out, "superuser  {}", server.superuser_url())?;
    writeln!(out, "data       {}", server.data_dir().display())?;
    writeln!(out, "process    {}", server.process_id().unwrap_or_default())?;
    writeln!(out, "Runs until the end of standard input (Ctrl-D) or Ctrl-C.")?;
    out.flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
