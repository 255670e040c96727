//! `hearth`: the host and its command line in one program.

fn main() -> std::process::ExitCode {
    hearth::run()
}
