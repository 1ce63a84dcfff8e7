//! `mutants`: breaks one rule after the other and says which test noticed.
//!
//! ```text
//! mutants [NAME …] [--target DIR]     all mutations unless some are named (a beginning is enough)
//! mutants --list
//! ```
//!
//! Works on a copy of what git knows of the work tree, in `DIR/tree` with `DIR` as cargo's target
//! folder (default: `target/mutants`). It must be a folder of its own: cargo takes two trees with one
//! target folder for one. Nothing of the work tree is touched. How: `kith_tests::mutants`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use kith_tests::mutants::{self, MUTATIONS, Mutation, Tests, VARIABLE};
use serde_json::Value;

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
    run_all(&Programs::build(&tree, &target)?, &chosen)
}

fn run_all(programs: &Programs, chosen: &[&Mutation]) -> io::Result<ExitCode> {
    // Everything must pass as it is, or a failure says nothing.
    let whole: BTreeSet<Tests> = chosen.iter().map(|one| one.tests).collect();
    for tests in whole {
        let began = Instant::now();
        let failed = programs.test(tests, None)?;
        println!("{} {} {}: {} s", tests.0, tests.1, tests.2.join(" "), began.elapsed().as_secs());
        if let Some(failed) = failed {
            eprintln!("fails without any mutation: {failed}");
            return Ok(ExitCode::from(2));
        }
    }
    let mut survived = Vec::new();
    for one in chosen {
        match programs.test(one.tests, Some(one.name))? {
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

/// The built tests, by package and target.
struct Programs {
    tree: PathBuf,
    built: BTreeMap<(String, String), PathBuf>,
}

impl Programs {
    fn build(tree: &Path, target: &Path) -> io::Result<Self> {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // All packages at once, whatever is chosen: with others, cargo would build other features.
        command.args(["test", "--no-run", "--quiet", "--message-format", "json", "--lib"]);
        let wanted = MUTATIONS.iter().map(|one| one.tests);
        let packages: BTreeSet<&str> = wanted.clone().map(|(package, ..)| package).collect();
        let tests: BTreeSet<&str> = wanted.map(|(_, test, _)| test).collect();
        for package in packages {
            command.args(["--package", package]);
        }
        for test in tests.into_iter().filter(|test| *test != "lib") {
            command.args(["--test", test]);
        }
        command.current_dir(tree).env("CARGO_TARGET_DIR", target);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        let messages = String::from_utf8_lossy(&output.stdout).into_owned();
        let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
        let messages: Vec<Value> = messages.collect();
        if !output.status.success() {
            let errors = messages.iter().filter(|one| one["message"]["level"] == "error");
            let errors = errors.filter_map(|one| one["message"]["rendered"].as_str());
            return Err(io::Error::other(errors.collect::<String>()));
        }
        let mut built = BTreeMap::new();
        for message in messages.iter().filter(|one| one["profile"]["test"] == true) {
            let Some(program) = message["executable"].as_str() else { continue };
            let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
            let folder = manifest.parent().and_then(Path::file_name).unwrap_or_default();
            let package = format!("kith-{}", folder.to_string_lossy());
            let library = message["target"]["kind"][0] == "lib";
            let name = message["target"]["name"].as_str().unwrap_or_default();
            let test = if library { "lib" } else { name };
            built.insert((package, test.to_owned()), PathBuf::from(program));
        }
        Ok(Self { tree: tree.to_path_buf(), built })
    }

    /// Runs tests; the first that failed, with the number of the others.
    fn test(&self, tests: Tests, mutation: Option<&str>) -> io::Result<Option<String>> {
        let (package, test, which) = tests;
        let program = self.built.get(&(package.to_owned(), test.to_owned()));
        let program =
            program.ok_or_else(|| io::Error::other(format!("{package} has no {test}")))?;
        let mut command = Command::new(program);
        command.args(which).env("RUST_BACKTRACE", "0").env_remove(VARIABLE);
        // That it fails is enough: nobody asks for the smallest way to fail.
        command.env("PROPTEST_MAX_SHRINK_ITERS", "0");
        command.current_dir(self.tree.join(package.trim_start_matches("kith-")));
        command.envs(mutation.map(|name| (VARIABLE, name))).stdin(Stdio::null());
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if said.contains("running 0 tests") {
            return Err(io::Error::other(format!("no test is called {which:?}")));
        }
        if output.status.success() {
            return Ok(None);
        }
        let failed = |line: &str| {
            let line = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
            Some(line.to_owned())
        };
        let failed: Vec<String> = said.lines().filter_map(failed).collect();
        Ok(Some(match failed.as_slice() {
            [] => format!("an end of the tests themselves ({})", output.status),
            [only] => only.clone(),
            [first, others @ ..] => format!("{first} and {} more", others.len()),
        }))
    }
}

/// Copies what git knows and what is new, with the mutations in it. A file that is the same already
/// is left as it is, so that cargo builds little.
fn copy(work: &Path, tree: &Path) -> io::Result<()> {
    let mut list = Command::new("git");
    list.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(work);
    let listed = list.output()?;
    let mut there = BTreeSet::new();
    for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty())
    {
        let (from, to) = (work.join(name), tree.join(name));
        // Deleted and not yet told to git.
        let Ok(mut bytes) = fs::read(&from) else { continue };
        if MUTATIONS.iter().any(|one| one.file == name) {
            bytes = mutants::planted(name, &String::from_utf8_lossy(&bytes)).into_bytes();
        }
        if fs::read(&to).ok().as_ref() != Some(&bytes) {
            fs::create_dir_all(to.parent().unwrap_or(tree))?;
            fs::write(&to, bytes)?;
        }
        there.insert(to);
    }
    remove_others(tree, &there)
}

fn remove_others(folder: &Path, keep: &BTreeSet<PathBuf>) -> io::Result<()> {
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
