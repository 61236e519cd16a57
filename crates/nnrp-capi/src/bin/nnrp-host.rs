//! A process of its own for one model; an engine starts it.

fn main() -> std::process::ExitCode {
    match nnrp::host::main(std::env::args().skip(1)) {
        Ok(()) => nnrp::host::end(),
        Err(error) => {
            eprintln!("nnrp-host: {error}");
            std::process::ExitCode::from(2)
        }
    }
}
