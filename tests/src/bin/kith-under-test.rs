//! The `kith` program once more, as the scenarios run it: see `kith_tests::programs`.

fn main() -> std::process::ExitCode {
    kith_node::cli::main()
}
