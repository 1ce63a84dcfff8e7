//! Whatever bytes come as a receipt.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn any_bytes_are_a_receipt_or_refused(bytes: Vec<u8>) {
        if let Ok(receipt) = Signed::<Receipt>::decode(&bytes) {
            prop_assert!(receipt.verify().is_err(), "nobody signs by chance");
        }
    }
}
