//! The `risiti` command itself, built for this package's tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    risiti_gateway::cli::main()
}
