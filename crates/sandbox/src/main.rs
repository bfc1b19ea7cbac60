//! `dr-demo`: loses a region on one machine, on purpose, and shows what `dr` makes of it.

fn main() -> std::process::ExitCode {
    dr_sandbox::demo::main()
}
