//! The `kith` program. Everything it does is in [`kith_node::cli`].

fn main() -> std::process::ExitCode {
    kith_node::cli::main()
}
