//! The command line; everything is in the library.

use std::process::ExitCode;

// One thread: there is little to do, and the system ties the life of our children to the thread that started them.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match stampede::cli::run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("stampede: {error:#}");
            ExitCode::FAILURE
        }
    }
}
