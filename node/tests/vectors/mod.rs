//! The vectors of `docs/PROTOCOL.md`, by name. [`people`] holds the fixed inputs.

mod crdt;
mod limits;
mod node;
mod people;

use std::collections::BTreeMap;

use crate::Vector;

/// Collects vectors.
#[derive(Default)]
pub(crate) struct Book(BTreeMap<String, Vector>);

impl Book {
    fn bytes(&mut self, name: &str, bytes: impl AsRef<[u8]>) {
        self.add(name, Vector::Bytes(bytes.as_ref().to_vec()));
    }

    fn text(&mut self, name: &str, text: impl Into<String>) {
        self.add(name, Vector::Text(text.into()));
    }

    fn add(&mut self, name: &str, vector: Vector) {
        assert!(self.0.insert(name.to_owned(), vector).is_none(), "{name:?} is there twice");
    }
}

/// Canonical postcard.
fn encoded<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data encodes")
}

/// All of them.
pub(crate) fn all() -> BTreeMap<String, Vector> {
    let mut book = Book::default();
    people::add(&mut book);
    crdt::add(&mut book);
    node::add(&mut book);
    limits::add(&mut book);
    book.text("relay/frames", include_str!("../../../relay/tests/golden/frames.txt"));
    book.text("entry/golden", include_str!("../../../crdt/tests/golden/entry.txt"));
    book.0
}
