//! `mutants`: breaks one rule after the other and says which test noticed.
//!
//! ```text
//! mutants [NAME …] [--target DIR]     all mutations unless some are named (a beginning is enough)
//! mutants --list
//! ```
//!
//! Works on a copy of what git knows of the work tree, in `DIR/tree` with `DIR` as cargo's target
//! folder (default: `target/mutants`). Nothing of the work tree is touched. How: `kith_tests::mutants`.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use kith_tests::mutants::{self, MUTATIONS, Mutation, Tests, VARIABLE};

const USAGE: &str = "usage: mutants [NAME …] [--target DIR] | --list";

fn main() -> io::Result<ExitCode> {
    let (mut names, mut target) = (Vec::new(), PathBuf::from("target/mutants"));
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.len()) {
            ("--list", _) => {
                MUTATIONS.iter().for_each(|one| println!("{:<34} {}", one.name, one.file));
                return Ok(ExitCode::SUCCESS);
            }
            ("--target", 1..) => target = arguments.next().unwrap_or_default().into(),
            (name, _) if !name.starts_with('-') => names.push(argument),
            _ => {
                eprintln!("{USAGE}");
                return Ok(ExitCode::from(2));
            }
        }
    }
    let wanted = |one: &&Mutation| {
        names.is_empty() || names.iter().any(|name| one.name.starts_with(name.as_str()))
    };
    let chosen: Vec<&Mutation> = MUTATIONS.iter().filter(wanted).collect();
    let work = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let target = work.join(target);
    let tree = target.join("tree");
    let astray = mutants::astray(&work);
    if !astray.is_empty() {
        eprintln!(
            "the code moved; move these in tests/src/mutants/list.rs:\n{}",
            astray.join("\n")
        );
        return Ok(ExitCode::from(2));
    }
    copy(&work, &tree)?;
    mutants::plant(&tree)?;
    let cargo = Cargo { tree, target };
    run_all(&cargo, &chosen)
}

fn run_all(cargo: &Cargo, chosen: &[&Mutation]) -> io::Result<ExitCode> {
    // Everything must pass as it is, or a failure says nothing.
    let mut whole: BTreeMap<Tests, ()> = BTreeMap::new();
    for tests in chosen.iter().map(|one| one.tests) {
        if whole.insert(tests, ()).is_none() {
            let began = Instant::now();
            let failed = cargo.test(tests, None)?;
            println!("{} {}: {} s", tests.0, tests.1.join(" "), began.elapsed().as_secs());
            if let Some(failed) = failed {
                eprintln!("fails without any mutation: {failed}");
                return Ok(ExitCode::from(2));
            }
        }
    }
    let mut survived = Vec::new();
    for one in chosen {
        match cargo.test(one.tests, Some(one.name))? {
            Some(by) => println!("{:<34} caught by {by}", one.name),
            None => {
                println!("{:<34} SURVIVED {} {:?}", one.name, one.file, one.from);
                survived.push(one.name);
            }
        }
    }
    println!("{} mutations, {} survived {}", chosen.len(), survived.len(), survived.join(" "));
    Ok(if survived.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Cargo {
    tree: PathBuf,
    target: PathBuf,
}

impl Cargo {
    /// Runs tests; the first that failed, with the number of the others.
    fn test(&self, (package, which): Tests, mutation: Option<&str>) -> io::Result<Option<String>> {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["test", "--quiet", "--package", package]).args(which);
        command.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        command.env_remove(VARIABLE).env("RUST_BACKTRACE", "0");
        command.envs(mutation.map(|name| (VARIABLE, name)));
        let output = command.stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(None);
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // The list after "failures:", indented.
        let failed: Vec<&str> = said
            .lines()
            .rev()
            .skip_while(|line| !line.starts_with("test result"))
            .skip(1)
            .take_while(|line| !line.starts_with("failures:"))
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        match failed.as_slice() {
            [] => {
                let errors = String::from_utf8_lossy(&output.stderr);
                let last: Vec<&str> = errors.lines().take(40).collect();
                Err(io::Error::other(format!("nothing was tested:\n{}", last.join("\n"))))
            }
            [.., first] if failed.len() > 1 => {
                Ok(Some(format!("{first} and {} more", failed.len() - 1)))
            }
            [only] => Ok(Some((*only).to_owned())),
            [..] => Ok(Some(String::new())),
        }
    }
}

/// Copies what git knows and what is new; a file that is the same already is left as it is, so that
/// cargo builds little.
fn copy(work: &Path, tree: &Path) -> io::Result<()> {
    let mut list = Command::new("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(work);
    let listed = list.output()?;
    let mut there = Vec::new();
    for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty())
    {
        let (from, to) = (work.join(name), tree.join(name));
        // Deleted and not yet told to git.
        let Ok(bytes) = fs::read(&from) else { continue };
        if fs::read(&to).ok().as_ref() != Some(&bytes) {
            fs::create_dir_all(to.parent().unwrap_or(tree))?;
            fs::write(&to, bytes)?;
        }
        there.push(to);
    }
    remove_others(tree, &there)
}

fn remove_others(folder: &Path, keep: &[PathBuf]) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, keep)?;
        } else if !keep.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
