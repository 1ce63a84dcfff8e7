//! The binary `kith-desktop`: opens the window.

fn main() {
    println!("{}", env!("CARGO_PKG_NAME"));
}
