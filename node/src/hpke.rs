//! HPKE (RFC 9180) over injected randomness: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
//! ChaCha20Poly1305, base and PSK mode, one message per encapsulation.
//!
//! The library asks a *static* function for its random numbers; [`Injected`] answers it from a
//! thread-local seed that lies there only while one library object is made. The law: nothing here
//! draws entropy of its own, so the same rng gives the same bytes.
//!
//! A sealed message is `encapsulated key (32) ‖ ciphertext ‖ tag (16)`.

use std::{cell::Cell, convert::Infallible};

use hpke_rs::{Hpke, HpkePrivateKey, HpkePublicKey, Mode};
use hpke_rs_crypto::{
    HpkeCrypto, HpkeTestRng,
    error::Error,
    types::{AeadAlgorithm, KdfAlgorithm, KemAlgorithm},
};
use hpke_rs_rust_crypto::HpkeRustCrypto;
use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, Rng, SeedableRng, TryCryptoRng, TryRng};
use zeroize::{Zeroize, Zeroizing};

/// How much longer a sealed message is than its plaintext, in bytes.
pub const OVERHEAD_BYTES: usize = 32 + 16;

/// Why a message could not be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The receiver's public key is not a usable X25519 point.
    #[error("the receiver's encryption key is not valid: ask for a fresh one")]
    BadKey,
    /// The pre-shared key is shorter than 32 bytes, or its id is empty (RFC 9180, section 9.5).
    #[error("the pre-shared key must have at least 32 bytes and an id")]
    BadPsk,
}

/// The message was not made for this key, these inputs, or was changed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message does not open with this key")]
pub struct OpenError;

/// A secret shared beforehand, and the name both sides know it by.
#[derive(Clone, Copy)]
pub struct Psk<'a> {
    /// At least 32 bytes of entropy.
    pub secret: &'a [u8],
    /// Not secret, not empty.
    pub id: &'a [u8],
}

/// An X25519 key pair. The private half is erased on drop and never printed.
pub struct Keypair {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Keypair {
    /// A fresh key pair.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(secret.as_mut_slice());
        Self::from_secret(secret)
    }

    /// The key pair of a stored private key (RFC 7748, clamped when used).
    pub fn from_secret(secret: Zeroizing<[u8; 32]>) -> Self {
        let public = HpkeRustCrypto::secret_to_public(KemAlgorithm::DhKem25519, secret.as_slice())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .expect("invariant: 32 bytes are always an X25519 private key");
        Self { secret, public }
    }

    /// The public key, for those who seal to us.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The private key, for the sealed store and for nothing else.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Opens a message in base mode.
    pub fn open(
        &self,
        info: &[u8],
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.open_in(Mode::Base, info, aad, None, sealed)
    }

    /// Opens a message in PSK mode: only one who knew the secret can have made it.
    pub fn open_psk(
        &self,
        info: &[u8],
        aad: &[u8],
        psk: Psk<'_>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        check_psk(psk).map_err(|_| OpenError)?;
        self.open_in(Mode::Psk, info, aad, Some(psk), sealed)
    }

    fn open_in(
        &self,
        mode: Mode,
        info: &[u8],
        aad: &[u8],
        psk: Option<Psk<'_>>,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (encapsulated, ciphertext) = sealed.split_at_checked(32).ok_or(OpenError)?;
        suite(mode, None)
            .open(
                encapsulated,
                &HpkePrivateKey::from(self.secret.as_slice()),
                info,
                aad,
                ciphertext,
                psk.map(|psk| psk.secret),
                psk.map(|psk| psk.id),
                None,
            )
            .map(Zeroizing::new)
            .map_err(|_| OpenError)
    }
}

/// Whether anything can be sealed to a public key: not to a point of small order.
pub fn is_usable(public: &[u8; 32]) -> bool {
    HpkeRustCrypto::dh(KemAlgorithm::DhKem25519, public, &[7; 32])
        .is_ok_and(|shared| shared.iter().any(|byte| *byte != 0))
}

/// Seals in base mode: anybody who knows the public key can have made the message.
///
/// `info` names the purpose and is bound into the key; `aad` is bound into this message.
pub fn seal(
    rng: &mut dyn CryptoRng,
    public: &[u8; 32],
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    seal_in(rng, Mode::Base, public, info, aad, None, plaintext)
}

/// Seals in PSK mode: the receiver also learns that the sender knew the secret.
pub fn seal_psk(
    rng: &mut dyn CryptoRng,
    public: &[u8; 32],
    info: &[u8],
    aad: &[u8],
    psk: Psk<'_>,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    check_psk(psk)?;
    seal_in(rng, Mode::Psk, public, info, aad, Some(psk), plaintext)
}

fn check_psk(psk: Psk<'_>) -> Result<(), SealError> {
    if psk.secret.len() < 32 || psk.id.is_empty() {
        return Err(SealError::BadPsk);
    }
    Ok(())
}

fn seal_in(
    rng: &mut dyn CryptoRng,
    mode: Mode,
    public: &[u8; 32],
    info: &[u8],
    aad: &[u8],
    psk: Option<Psk<'_>>,
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(seed.as_mut_slice());
    let (mut sealed, ciphertext) = suite(mode, Some(&seed))
        .seal(
            &HpkePublicKey::from(public.as_slice()),
            info,
            aad,
            plaintext,
            psk.map(|psk| psk.secret),
            psk.map(|psk| psk.id),
            None,
        )
        .map_err(|_| SealError::BadKey)?;
    sealed.extend_from_slice(&ciphertext);
    Ok(sealed)
}

fn suite(mode: Mode, seed: Option<&[u8; 32]>) -> Hpke<Injected> {
    seeded(
        mode,
        KemAlgorithm::DhKem25519,
        KdfAlgorithm::HkdfSha256,
        AeadAlgorithm::ChaCha20Poly1305,
        seed,
    )
}

/// A library object that draws from `seed`, or, with none, must not draw at all.
pub(crate) fn seeded(
    mode: Mode,
    kem: KemAlgorithm,
    kdf: KdfAlgorithm,
    aead: AeadAlgorithm,
    seed: Option<&[u8; 32]>,
) -> Hpke<Injected> {
    let _slot = Slot::fill(seed);
    Hpke::new(mode, kem, kdf, aead)
}

thread_local! {
    static SEED: Cell<Option<[u8; 32]>> = const { Cell::new(None) };
}

/// Holds the seed of the library object being made; emptied on drop, so also when it panics.
struct Slot;

impl Slot {
    fn fill(seed: Option<&[u8; 32]>) -> Self {
        SEED.set(seed.copied());
        Self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(mut seed) = SEED.take() {
            seed.zeroize();
        }
    }
}

/// RustCrypto's primitives with the random numbers of [`seeded`].
#[derive(Debug)]
pub(crate) struct Injected;

/// The generator of one library object. The library clones objects for work that needs no
/// randomness; those clones hold none.
pub(crate) struct SeededRng(Option<ChaCha20Rng>);

impl Zeroize for SeededRng {
    fn zeroize(&mut self) {
        self.0 = None;
    }
}

impl TryRng for SeededRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.rng().next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.rng().next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.rng().fill_bytes(bytes);
        Ok(())
    }
}

impl SeededRng {
    fn rng(&mut self) -> &mut ChaCha20Rng {
        self.0.as_mut().expect("invariant: whoever encapsulates was made with a seed")
    }
}

impl TryCryptoRng for SeededRng {}

impl HpkeTestRng for SeededRng {
    type Error = Infallible;

    fn try_fill_test_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.try_fill_bytes(bytes)
    }

    fn seed(&mut self, _seed: &[u8]) {}
}

impl HpkeCrypto for Injected {
    type HpkePrng = SeededRng;

    fn name() -> String {
        "RustCrypto with injected randomness".into()
    }

    fn prng() -> SeededRng {
        SeededRng(SEED.take().map(|mut seed| {
            let rng = ChaCha20Rng::from_seed(seed);
            seed.zeroize();
            rng
        }))
    }

    fn supports_kdf(alg: KdfAlgorithm) -> Result<(), Error> {
        HpkeRustCrypto::supports_kdf(alg)
    }

    fn supports_kem(alg: KemAlgorithm) -> Result<(), Error> {
        match alg {
            KemAlgorithm::DhKem25519 => Ok(()),
            _ => Err(Error::UnknownKemAlgorithm),
        }
    }

    fn supports_aead(alg: AeadAlgorithm) -> Result<(), Error> {
        HpkeRustCrypto::supports_aead(alg)
    }

    fn kdf_extract(alg: KdfAlgorithm, salt: &[u8], ikm: &[u8]) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::kdf_extract(alg, salt, ikm)
    }

    fn kdf_expand(
        alg: KdfAlgorithm,
        prk: &[u8],
        info: &[u8],
        length: usize,
    ) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::kdf_expand(alg, prk, info, length)
    }

    fn dh(alg: KemAlgorithm, pk: &[u8], sk: &[u8]) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::dh(alg, pk, sk)
    }

    fn secret_to_public(alg: KemAlgorithm, sk: &[u8]) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::secret_to_public(alg, sk)
    }

    fn kem_key_gen(alg: KemAlgorithm, prng: &mut SeededRng) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let mut secret = Zeroizing::new([0; 32]);
        prng.rng().fill_bytes(secret.as_mut_slice());
        Ok((Self::secret_to_public(alg, secret.as_slice())?, secret.to_vec()))
    }

    fn kem_key_gen_derand(alg: KemAlgorithm, seed: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
        HpkeRustCrypto::kem_key_gen_derand(alg, seed)
    }

    fn kem_encaps(
        _alg: KemAlgorithm,
        _pk: &[u8],
        _prng: &mut SeededRng,
    ) -> Result<(Vec<u8>, Vec<u8>), Error> {
        Err(Error::UnsupportedKemOperation)
    }

    fn kem_decaps(alg: KemAlgorithm, ct: &[u8], sk: &[u8]) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::kem_decaps(alg, ct, sk)
    }

    fn dh_validate_sk(alg: KemAlgorithm, sk: &[u8]) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::dh_validate_sk(alg, sk)
    }

    fn aead_seal(
        alg: AeadAlgorithm,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        msg: &[u8],
    ) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::aead_seal(alg, key, nonce, aad, msg)
    }

    fn aead_open(
        alg: AeadAlgorithm,
        key: &[u8],
        nonce: &[u8],
        aad: &[u8],
        msg: &[u8],
    ) -> Result<Vec<u8>, Error> {
        HpkeRustCrypto::aead_open(alg, key, nonce, aad, msg)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn rng(seed: u8) -> ChaCha20Rng {
        ChaCha20Rng::from_seed([seed; 32])
    }

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    fn keypair(secret: &str) -> Keypair {
        Keypair::from_secret(Zeroizing::new(hex(secret).try_into().unwrap()))
    }

    const INFO: &str = "4f6465206f6e2061204772656369616e2055726e";
    const AAD: &str = "436f756e742d30";
    const TEXT: &[u8] = b"Beauty is truth, truth beauty";

    /// RFC 9180, appendix A.2.1, sequence number 0.
    #[test]
    fn opens_the_vector_of_the_rfc_in_base_mode() {
        let key = keypair("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
        assert_eq!(
            HEXLOWER.encode(key.public()),
            "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a"
        );
        let sealed = hex(concat!(
            "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
            "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db",
            "21993c62ce81883d2dd1b51a28"
        ));
        assert_eq!(key.open(&hex(INFO), &hex(AAD), &sealed).unwrap().as_slice(), TEXT);
    }

    /// RFC 9180, appendix A.2.2, sequence number 0.
    #[test]
    fn opens_the_vector_of_the_rfc_in_psk_mode() {
        let key = keypair("77d114e0212be51cb1d76fa99dd41cfd4d0166b08caa09074430a6c59ef17879");
        let psk = hex("0247fd33b913760fa1fa51e1892d9f307fbe65eb171e8132c2af18555a738b82");
        let id = hex("456e6e796e20447572696e206172616e204d6f726961");
        let sealed = hex(concat!(
            "2261299c3f40a9afc133b969a97f05e95be2c514e54f3de26cbe5644ac735b04",
            "4a177f9c0d6f15cfdf533fb65bf84aecdc6ab16b8b85b4cf65a370e07fc1d78d",
            "28fb073214525276f4a89608ff"
        ));
        let psk = Psk { secret: &psk, id: &id };
        assert_eq!(key.open_psk(&hex(INFO), &hex(AAD), psk, &sealed).unwrap().as_slice(), TEXT);
        assert_eq!(key.open(&hex(INFO), &hex(AAD), &sealed), Err(OpenError));
    }

    #[test]
    fn the_same_rng_gives_the_same_bytes_and_another_other_bytes() {
        let key = Keypair::generate(&mut rng(1));
        let one = seal(&mut rng(2), key.public(), b"i", b"a", b"text").unwrap();
        assert_eq!(one, seal(&mut rng(2), key.public(), b"i", b"a", b"text").unwrap());
        assert_ne!(one, seal(&mut rng(3), key.public(), b"i", b"a", b"text").unwrap());
        let mut rng = rng(2);
        assert_eq!(one, seal(&mut rng, key.public(), b"i", b"a", b"text").unwrap());
        assert_ne!(one, seal(&mut rng, key.public(), b"i", b"a", b"text").unwrap());
        assert_eq!(one.len(), 4 + OVERHEAD_BYTES);
    }

    #[test]
    fn bad_keys_and_short_secrets_are_refused() {
        let zero = [0; 32];
        assert_eq!(seal(&mut rng(1), &zero, b"", b"", b""), Err(SealError::BadKey));
        let key = Keypair::generate(&mut rng(1));
        for psk in [Psk { secret: &[1; 31], id: b"x" }, Psk { secret: &[1; 32], id: b"" }] {
            let sealed = seal_psk(&mut rng(1), key.public(), b"", b"", psk, b"");
            assert_eq!(sealed, Err(SealError::BadPsk));
            assert_eq!(key.open_psk(b"", b"", psk, &[0; 64]), Err(OpenError));
        }
    }

    proptest! {
        #[test]
        fn a_changed_message_or_context_does_not_open(
            text in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<proptest::sample::Index>(),
            bit in 0u8..8,
            cut in any::<proptest::sample::Index>(),
        ) {
            let key = Keypair::generate(&mut rng(1));
            let secret = [7; 32];
            let psk = Psk { secret: &secret, id: b"id" };
            let base = seal(&mut rng(2), key.public(), b"info", b"aad", &text).unwrap();
            let with = seal_psk(&mut rng(2), key.public(), b"info", b"aad", psk, &text).unwrap();
            let opened = key.open(b"info", b"aad", &base).unwrap();
            prop_assert_eq!(opened.as_slice(), &text);
            let opened = key.open_psk(b"info", b"aad", psk, &with).unwrap();
            prop_assert_eq!(opened.as_slice(), &text);

            prop_assert_eq!(key.open(b"other", b"aad", &base), Err(OpenError));
            prop_assert_eq!(key.open(b"info", b"other", &base), Err(OpenError));
            let wrong = Psk { secret: &[8; 32], id: b"id" };
            prop_assert_eq!(key.open_psk(b"info", b"aad", wrong, &with), Err(OpenError));
            let other = Keypair::generate(&mut rng(9));
            prop_assert_eq!(other.open(b"info", b"aad", &base), Err(OpenError));
            prop_assert_eq!(key.open(b"info", b"aad", &base[..cut.index(base.len())]), Err(OpenError));

            // The top bit of an X25519 point is ignored (RFC 7748), but the encapsulated bytes are
            // bound into the key, so even that change is noticed.
            let mut changed = base.clone();
            let at = at.index(changed.len());
            changed[at] ^= 1 << bit;
            prop_assert_eq!(key.open(b"info", b"aad", &changed), Err(OpenError));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let key = Keypair::generate(&mut rng(1));
            prop_assert_eq!(key.open(b"", b"", &bytes), Err(OpenError));
        }
    }
}
