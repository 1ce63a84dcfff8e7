//! Safety numbers: 60 digits that two people compare to know that nobody is in between.
//!
//! As Signal's numeric fingerprints: each user's root key is hashed 5,200 times (so that looking for
//! a key with a similar number is dear), 30 bytes of the result become 30 digits, and both halves are
//! put in order, so both sides see the same number. BLAKE3 instead of SHA-512:
//!
//! ```text
//! h_0     = BLAKE3-derive-key("kith/safety-number/1", root)
//! h_(n+1) = BLAKE3-derive-key("kith/safety-number/1", h_n ‖ root)
//! digits  = 6 × (5 bytes of h_5200, big endian, mod 100000)
//! ```

use std::fmt;

use kith_crdt::id::UserId;

const ITERATIONS: usize = 5200;
const GROUPS_PER_USER: usize = 6;

/// The 60 digits of a pair of users. `Display` shows 12 groups of 5, with single spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafetyNumber(String);

impl SafetyNumber {
    /// The number of two users; their order does not matter.
    pub fn new(a: &UserId, b: &UserId) -> Self {
        let mut halves = [half(a), half(b)];
        halves.sort();
        Self(halves.concat())
    }

    /// The digits without spaces.
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// The 12 groups of five digits.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        (0..2 * GROUPS_PER_USER).map(|at| &self.0[5 * at..5 * at + 5])
    }

    /// Whether a text holds the same digits, whatever stands between them.
    pub fn matches(&self, text: &str) -> bool {
        text.chars().filter(char::is_ascii_digit).eq(self.0.chars())
    }
}

impl fmt::Display for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.groups().collect::<Vec<_>>().join(" "))
    }
}

fn half(user: &UserId) -> String {
    const CONTEXT: &str = "kith/safety-number/1";
    let mut hash = blake3::derive_key(CONTEXT, &user.0);
    for _ in 0..ITERATIONS {
        let mut input = [0; 64];
        input[..32].copy_from_slice(&hash);
        input[32..].copy_from_slice(&user.0);
        hash = blake3::derive_key(CONTEXT, &input);
    }
    let group =
        |bytes: &[u8]| bytes.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte)) % 100_000;
    hash[..5 * GROUPS_PER_USER].chunks(5).map(|bytes| format!("{:05}", group(bytes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_sixty_digits_forever() {
        let (a, b) = (UserId([1; 32]), UserId([2; 32]));
        let number = SafetyNumber::new(&a, &b);
        assert_eq!(number, SafetyNumber::new(&b, &a));
        assert_eq!(number.digits().len(), 60);
        assert_eq!(number.groups().count(), 12);
        // Golden: people wrote it down.
        assert_eq!(
            number.to_string(),
            "46491 89003 04454 93550 84467 87826 56012 60891 76954 96043 42367 84334"
        );
    }

    #[test]
    fn a_changed_root_changes_its_half_only() {
        let (a, b, c) = (UserId([1; 32]), UserId([2; 32]), UserId([3; 32]));
        let (ab, ac) = (SafetyNumber::new(&a, &b), SafetyNumber::new(&a, &c));
        assert_ne!(ab, ac);
        assert!(ab.matches(&ab.to_string()));
        assert!(ab.matches(&ab.to_string().replace(' ', "\n")));
        assert!(!ab.matches(&ac.to_string()));
        assert!(!ab.matches(""));
    }
}
