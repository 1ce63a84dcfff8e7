//! `init` and `words`: making a device, and handing over its 24 words.
//!
//! The law: the words are shown on a terminal or written to a file only the owner can read, and
//! nowhere else; they are forgotten here only once one of both was done and confirmed.

use std::{
    fs::OpenOptions,
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
};

use serde::Serialize;

use super::{
    args::{Global, InitArgs, WordsArgs},
    backend,
    output::{Output, Stop},
};
use crate::{
    api::error::{ApiError, ErrorCode},
    host,
    store::StoreError,
};

/// What `init` prints.
#[derive(Serialize)]
struct Made {
    user: String,
    device: String,
    name: String,
    profile: String,
    /// Whether the words are still sealed in the profile.
    words_kept: bool,
}

/// Makes a device.
pub(super) fn init(global: &Global, args: &InitArgs, out: &mut Output) -> Result<(), Stop> {
    let name = valid_name(args.name.as_deref().unwrap_or_default(), "--name")?;
    let device_name = args.device_name();
    let device_name = valid_name(&device_name, "--device-name")?;
    let profile = backend::profile(global)?;
    if profile.exists() {
        return Err(StoreError::Exists.into());
    }
    // Before anything is made: a file that can not be written is no reason to lose the words.
    let file = args.words_to.as_deref().map(WordsFile::create).transpose()?;
    let made = match host::create(&profile, &global.key_source(), name, device_name) {
        Ok(made) => made,
        Err(error) => {
            if let Some(file) = file {
                file.discard();
            }
            return Err(error.into());
        }
    };
    let confirmed = match file {
        Some(file) => {
            file.write(&made.words)?;
            true
        }
        None => !out.json() && show_on_terminal(&made.words),
    };
    if confirmed {
        host::forget_words(&made.store)?;
    }
    let result = Made {
        user: made.user,
        device: made.device,
        name: name.to_owned(),
        profile: profile.folder().display().to_string(),
        words_kept: !confirmed,
    };
    out.result(&result, || {
        format!("made {} in {}\nuser {}", result.name, result.profile, result.user)
    })?;
    if !confirmed {
        out.hint("the 24 words stay sealed in the profile until you ask for them: kith words");
    }
    out.tip("next: kith up");
    Ok(())
}

/// Hands over the words that were kept.
pub(super) fn words(global: &Global, args: &WordsArgs, out: &mut Output) -> Result<(), Stop> {
    let profile = backend::profile(global)?;
    let opened = profile.open(&global.key_source()).map_err(ApiError::from);
    let store = opened.map_err(while_running)?;
    let Some(words) = host::kept_words(&store)? else {
        return Err(ApiError::new(ErrorCode::Unsupported, "the words are not kept here any more")
            .hint("they were confirmed: the paper or file you made then is the only copy")
            .into());
    };
    let confirmed = match &args.to {
        Some(path) => {
            WordsFile::create(path)?.write(&words)?;
            true
        }
        None if out.json() || !on_terminal() => {
            return Err(ApiError::new(
                ErrorCode::Usage,
                "there is no terminal to show the words on",
            )
            .hint("write them to a file only you can read: kith words --to FILE")
            .into());
        }
        None => show_on_terminal(&words),
    };
    if confirmed {
        host::forget_words(&store)?;
    } else {
        out.hint("not confirmed: the words stay sealed in the profile");
    }
    let result = serde_json::json!({ "words_kept": !confirmed });
    out.result(&result, || if confirmed { "done".into() } else { String::new() })?;
    Ok(())
}

fn while_running(error: ApiError) -> ApiError {
    if error.code == ErrorCode::ProfileInUse {
        error.hint("stop `kith up` first: the words are not given over its socket")
    } else {
        error
    }
}

/// The name as it will be shown to others.
pub(super) fn valid_name<'a>(name: &'a str, option: &str) -> Result<&'a str, ApiError> {
    host::valid_name(name).map_err(|error| error.hint(format!("choose another one with {option}")))
}

fn on_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Shows the words and waits until they are written down.
fn show_on_terminal(words: &str) -> bool {
    if !on_terminal() {
        return false;
    }
    let mut out = io::stdout().lock();
    let list: Vec<_> = words.split_whitespace().collect();
    let rows = list.len().div_ceil(4);
    let mut shown =
        "\nYour 24 words. Write them on paper: with them you can make your identity anew.\n\n"
            .to_owned();
    for row in 0..rows {
        for column in 0..4 {
            let index = column * rows + row;
            if let Some(word) = list.get(index) {
                shown.push_str(&format!("{:>4}. {word:<12}", index + 1));
            }
        }
        shown.push('\n');
    }
    shown.push_str("\nPress Enter once you have written them down; they are not shown again. ");
    let written = out.write_all(shown.as_bytes()).and_then(|()| out.flush());
    zeroize::Zeroize::zeroize(&mut shown);
    if written.is_err() {
        return false;
    }
    let mut line = String::new();
    let confirmed = matches!(io::stdin().lock().read_line(&mut line), Ok(read) if read > 0);
    // The words leave the screen, and the scroll-back where terminals allow it.
    let _ = out.write_all(b"\x1b[H\x1b[2J\x1b[3J").and_then(|()| out.flush());
    confirmed
}

/// A new file for the words.
struct WordsFile<'a> {
    path: &'a Path,
    file: std::fs::File,
}

impl<'a> WordsFile<'a> {
    fn create(path: &'a Path) -> Result<Self, ApiError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|error| {
            ApiError::new(
                ErrorCode::Io,
                format_args!("cannot write the words to {}: {error}", path.display()),
            )
            .hint("name a new file in a folder you can write to")
        })?;
        Ok(Self { path, file })
    }

    fn write(mut self, words: &str) -> Result<(), ApiError> {
        let written = self
            .file
            .write_all(words.as_bytes())
            .and_then(|()| self.file.write_all(b"\n"))
            .and_then(|()| self.file.sync_all());
        written.map_err(|error| {
            let path = self.path.display();
            let code = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
                _ => ErrorCode::Io,
            };
            ApiError::new(code, format_args!("cannot write the words to {path}: {error}"))
                .hint("the device was made and keeps the words: kith words --to FILE")
        })
    }

    fn discard(self) {
        drop(self.file);
        let _ = std::fs::remove_file(self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(valid_name(" Ana  ", "--name").unwrap(), "Ana");
        assert_eq!(valid_name("Ana Ñ 👩‍💻", "--name").unwrap(), "Ana Ñ 👩‍💻");
        for bad in ["", "  ", "a\nb", "a\u{202e}b", "\x1b[2J", &"x".repeat(65)] {
            assert_eq!(
                valid_name(bad, "--name").unwrap_err().code,
                ErrorCode::InvalidName,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn the_words_file_is_new_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words");
        WordsFile::create(&path).unwrap().write("one two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one two\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(WordsFile::create(&path).is_err(), "an existing file is not overwritten");
    }
}
