//! Whether the tests notice when a rule is broken.
//!
//! Each [`Mutation`] is a rule of the code with what stands there when it is broken. All of them are put
//! into one copy of the work tree as `if the environment variable KITH_MUTANT names it { broken } else
//! { as it was }`, so everything is built once; then the tests run once as they are and once for each
//! mutation, with the variable set, in the processes they start too.
//!
//! The law: a text that is not found exactly once is an error, never a mutation left out.

mod list;

use std::{fs, path::Path};

pub use list::{MUTATIONS, Mutation, Tests};

/// The variable that names the mutation that is on.
pub const VARIABLE: &str = "KITH_MUTANT";

/// Texts that are not where they should be: the code moved, and its mutation must follow it.
pub fn astray(tree: &Path) -> Vec<String> {
    let astray = |mutation: &&Mutation| match fs::read_to_string(tree.join(mutation.file)) {
        Ok(text) => match text.matches(mutation.from).count() {
            1 => None,
            times => Some(format!("stands {times} times")),
        },
        Err(error) => Some(error.to_string()),
    };
    let about = |mutation: &Mutation, what| {
        format!("{} in {}: {:?} {what}", mutation.name, mutation.file, mutation.from)
    };
    MUTATIONS.iter().filter_map(|one| Some(about(one, astray(&one)?))).collect()
}

/// The text of a file with all its mutations in it.
pub fn planted(file: &str, text: &str) -> String {
    let of_file = MUTATIONS.iter().filter(|mutation| mutation.file == file);
    of_file.fold(text.to_owned(), |text, mutation| {
        let Mutation { name, from, to, .. } = mutation;
        let on = format!("std::env::var(\"{VARIABLE}\").is_ok_and(|on| on == \"{name}\")");
        let switch = match from.ends_with(';') {
            true => format!("if {on} {{ {to} }} else {{ {from} }}"),
            false => format!("(if {on} {{ {to} }} else {{ {from} }})"),
        };
        text.replacen(from, &switch, 1)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_mutation_finds_its_place() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let astray = astray(&tree);
        assert!(
            astray.is_empty(),
            "move these in tests/src/mutants/list.rs:\n{}",
            astray.join("\n")
        );
        let names: BTreeSet<&str> = MUTATIONS.iter().map(|mutation| mutation.name).collect();
        assert_eq!(names.len(), MUTATIONS.len(), "two mutations have one name");
    }
}
