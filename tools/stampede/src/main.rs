//! The command line; everything is in the library.

use std::io::Write as _;
use std::process::ExitCode;

// One thread: there is little to do, and the system ties the life of our children to the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    stampede::ambient::raise_descriptors();
    let code = match stampede::ambient::drop_variables() {
        Ok(()) => stampede::cli::run().await,
        Err(error) => Err(error.into()),
    };
    code.unwrap_or_else(|error| {
        // Unlike eprintln!, no panic where standard error is closed.
        let _ = writeln!(std::io::stderr(), "stampede: {error:#}");
        ExitCode::FAILURE
    })
}
