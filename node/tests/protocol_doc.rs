//! `docs/PROTOCOL.md` shows bytes; here they are made again, from the code, from fixed inputs.
//!
//! Every block of the document that begins with three backticks and `vector NAME` must hold exactly
//! what [`vectors`] gives for the name. After a deliberate change write the blocks anew with
//! `KITH_BLESS=1 cargo test -p kith-node --test protocol_doc`.
//!
//! The law: the document can not drift. What it says in numbers it says in these blocks too.

mod vectors;

use std::{collections::BTreeMap, fs, path::PathBuf};

use kith_node::api::{error::ErrorCode, types::Request};

/// What stands in a block.
pub(crate) enum Vector {
    /// Bytes, shown as hex.
    Bytes(Vec<u8>),
    /// Lines.
    Text(String),
}

const COLUMNS: usize = 96;

impl Vector {
    fn show(&self) -> String {
        match self {
            Vector::Text(text) => text.trim_end().to_owned() + "\n",
            Vector::Bytes(bytes) => {
                let hex = data_encoding::HEXLOWER.encode(bytes);
                let lines = hex.as_bytes().chunks(COLUMNS);
                lines.map(|line| String::from_utf8_lossy(line).into_owned() + "\n").collect()
            }
        }
    }
}

fn document(name: &str) -> (PathBuf, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let text = fs::read_to_string(&path).expect("the document is there");
    (path, text)
}

/// The document with every block as it must be.
fn filled(text: &str, mut vectors: BTreeMap<String, Vector>) -> String {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let Some(name) = line.strip_prefix("```vector ") else { continue };
        let vector = vectors.remove(name).unwrap_or_else(|| panic!("no vector {name:?}, or twice"));
        out.push_str(&vector.show());
        assert!(lines.any(|line| line == "```"), "the block of {name:?} does not end");
        out.push_str("```\n");
    }
    let forgotten: Vec<_> = vectors.keys().collect();
    assert!(forgotten.is_empty(), "the document has no block for {forgotten:?}");
    out
}

#[test]
fn the_document_shows_the_bytes_of_the_code() {
    let (path, text) = document("PROTOCOL.md");
    let right = filled(&text, vectors::all());
    if std::env::var_os("KITH_BLESS").is_some() {
        fs::write(&path, &right).expect("the document can be written");
        return;
    }
    for (number, (found, right)) in text.lines().zip(right.lines()).enumerate() {
        assert_eq!(found, right, "docs/PROTOCOL.md, line {}", number + 1);
    }
    assert_eq!(text.len(), right.len());
}

#[test]
fn the_documents_name_every_method_and_every_error() {
    let (_, protocol) = document("PROTOCOL.md");
    for method in Request::METHODS {
        assert!(protocol.contains(&format!("| `{method}` |")), "docs/PROTOCOL.md lacks {method}");
    }
    let (_, guide) = document("GUIDE.md");
    for code in ErrorCode::ALL {
        let code = code.as_str();
        assert!(guide.contains(&format!("| `{code}` |")), "docs/GUIDE.md lacks {code}");
    }
}
