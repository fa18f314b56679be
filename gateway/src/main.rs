//! The `risiti` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    risiti_gateway::cli::main()
}
