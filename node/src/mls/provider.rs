//! What OpenMLS is given instead of its own clock and entropy: a provider that is wholly
//! determined by the storage beneath it and one seed per operation.
//!
//! Pure operations go to RustCrypto. Whatever draws random numbers draws them from a ChaCha20
//! stream seeded with 32 bytes of the core's rng. The law: RustCrypto's own generator, which is
//! seeded by the operating system, is never asked.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use ed25519_dalek::{Signer as _, SigningKey};
use hpke_rs::{Hpke, Mode};
use hpke_rs_crypto::types::{AeadAlgorithm, KdfAlgorithm, KemAlgorithm};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    OpenMlsProvider,
    crypto::OpenMlsCrypto,
    random::OpenMlsRand,
    signatures::{Signer, SignerError},
    types::{
        AeadType, Ciphersuite, CryptoError, ExporterSecret, HashType, HpkeAeadType, HpkeCiphertext,
        HpkeConfig, HpkeKdfType, HpkeKemType, HpkeKeyPair, KemOutput, SignatureScheme,
    },
};
use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, Rng, SeedableRng};
use tls_codec::SecretVLBytes;
use zeroize::Zeroizing;

use super::{CIPHERSUITE, storage::Storage};
use crate::{
    hpke::{self, Injected},
    kv::KvRead,
};

/// The provider of one operation.
pub(super) struct Provider<'a> {
    crypto: SeededCrypto,
    storage: Storage<'a>,
}

impl<'a> Provider<'a> {
    pub(super) fn new(kv: &'a dyn KvRead, rng: &mut dyn CryptoRng) -> Self {
        Self { crypto: SeededCrypto::new(rng), storage: Storage::new(kv) }
    }

    pub(super) fn into_storage(self) -> Storage<'a> {
        self.storage
    }
}

impl<'a> OpenMlsProvider for Provider<'a> {
    type CryptoProvider = SeededCrypto;
    type RandProvider = SeededCrypto;
    type StorageProvider = Storage<'a>;

    fn storage(&self) -> &Storage<'a> {
        &self.storage
    }

    fn crypto(&self) -> &SeededCrypto {
        &self.crypto
    }

    fn rand(&self) -> &SeededCrypto {
        &self.crypto
    }
}

/// Signs as a device.
pub(super) struct DeviceSigner<'a>(pub(super) &'a SigningKey);

impl Signer for DeviceSigner<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.0.sign(payload).to_bytes().to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Only asked for pure operations; its generator is seeded once and never drawn from.
static PURE: LazyLock<RustCrypto> = LazyLock::new(RustCrypto::default);

/// RustCrypto with a stream of our own. The traits want it shareable between threads, hence the
/// lock; an operation never leaves its thread.
pub(super) struct SeededCrypto {
    rng: Mutex<ChaCha20Rng>,
}

/// Never happens: the stream does not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the random stream ended")]
pub(super) struct Exhausted;

impl SeededCrypto {
    fn new(rng: &mut dyn CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut_slice());
        Self { rng: Mutex::new(ChaCha20Rng::from_seed(*seed)) }
    }

    fn rng(&self) -> MutexGuard<'_, ChaCha20Rng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seed(&self) -> Zeroizing<[u8; 32]> {
        let mut seed = Zeroizing::new([0; 32]);
        self.rng().fill_bytes(seed.as_mut_slice());
        seed
    }

    fn sender(&self, config: HpkeConfig) -> Result<Hpke<Injected>, CryptoError> {
        suite(config, Some(&self.seed()))
    }
}

/// Refuses every suite but ours. With no seed the object can open and derive, not seal.
fn suite(config: HpkeConfig, seed: Option<&[u8; 32]>) -> Result<Hpke<Injected>, CryptoError> {
    let ours = (HpkeKemType::DhKem25519, HpkeKdfType::HkdfSha256, HpkeAeadType::ChaCha20Poly1305);
    if (config.0, config.1, config.2) != ours {
        return Err(CryptoError::UnsupportedCiphersuite);
    }
    Ok(hpke::seeded(
        Mode::Base,
        KemAlgorithm::DhKem25519,
        KdfAlgorithm::HkdfSha256,
        AeadAlgorithm::ChaCha20Poly1305,
        seed,
    ))
}

impl OpenMlsRand for SeededCrypto {
    type Error = Exhausted;

    fn random_array<const N: usize>(&self) -> Result<[u8; N], Exhausted> {
        let mut bytes = [0; N];
        self.rng().fill_bytes(&mut bytes);
        Ok(bytes)
    }

    fn random_vec(&self, len: usize) -> Result<Vec<u8>, Exhausted> {
        let mut bytes = vec![0; len];
        self.rng().fill_bytes(&mut bytes);
        Ok(bytes)
    }
}

impl OpenMlsCrypto for SeededCrypto {
    fn supports(&self, suite: Ciphersuite) -> Result<(), CryptoError> {
        if suite == CIPHERSUITE { Ok(()) } else { Err(CryptoError::UnsupportedCiphersuite) }
    }

    fn supported_ciphersuites(&self) -> Vec<Ciphersuite> {
        vec![CIPHERSUITE]
    }

    fn signature_key_gen(
        &self,
        scheme: SignatureScheme,
    ) -> Result<(Vec<u8>, Vec<u8>), CryptoError> {
        if scheme != SignatureScheme::ED25519 {
            return Err(CryptoError::UnsupportedSignatureScheme);
        }
        let key = SigningKey::from_bytes(&self.seed());
        Ok((key.to_bytes().to_vec(), key.verifying_key().to_bytes().to_vec()))
    }

    fn hpke_seal(
        &self,
        config: HpkeConfig,
        public: &[u8],
        info: &[u8],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        let (kem_output, ciphertext) = self
            .sender(config)?
            .seal(&public.into(), info, aad, plaintext, None, None, None)
            .map_err(|_| CryptoError::HpkeEncryptionError)?;
        Ok(HpkeCiphertext { kem_output: kem_output.into(), ciphertext: ciphertext.into() })
    }

    fn hpke_setup_sender_and_export(
        &self,
        config: HpkeConfig,
        public: &[u8],
        info: &[u8],
        context: &[u8],
        length: usize,
    ) -> Result<(KemOutput, ExporterSecret), CryptoError> {
        let (kem_output, sender) = self
            .sender(config)?
            .setup_sender(&public.into(), info, None, None, None)
            .map_err(|_| CryptoError::SenderSetupError)?;
        let secret = sender.export(context, length).map_err(|_| CryptoError::ExporterError)?;
        Ok((kem_output, secret.into()))
    }

    // What follows draws nothing.

    fn hkdf_extract(
        &self,
        hash: HashType,
        salt: &[u8],
        ikm: &[u8],
    ) -> Result<SecretVLBytes, CryptoError> {
        PURE.hkdf_extract(hash, salt, ikm)
    }

    fn hmac(&self, hash: HashType, key: &[u8], data: &[u8]) -> Result<SecretVLBytes, CryptoError> {
        PURE.hmac(hash, key, data)
    }

    fn hkdf_expand(
        &self,
        hash: HashType,
        prk: &[u8],
        info: &[u8],
        length: usize,
    ) -> Result<SecretVLBytes, CryptoError> {
        PURE.hkdf_expand(hash, prk, info, length)
    }

    fn hash(&self, hash: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        PURE.hash(hash, data)
    }

    fn aead_encrypt(
        &self,
        aead: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        PURE.aead_encrypt(aead, key, data, nonce, aad)
    }

    fn aead_decrypt(
        &self,
        aead: AeadType,
        key: &[u8],
        data: &[u8],
        nonce: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        PURE.aead_decrypt(aead, key, data, nonce, aad)
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        data: &[u8],
        public: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        PURE.verify_signature(scheme, data, public, signature)
    }

    fn sign(
        &self,
        scheme: SignatureScheme,
        data: &[u8],
        key: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        PURE.sign(scheme, data, key)
    }

    fn hpke_open(
        &self,
        config: HpkeConfig,
        input: &HpkeCiphertext,
        secret: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        suite(config, None)?
            .open(
                input.kem_output.as_slice(),
                &secret.into(),
                info,
                aad,
                input.ciphertext.as_slice(),
                None,
                None,
                None,
            )
            .map_err(|_| CryptoError::HpkeDecryptionError)
    }

    fn hpke_setup_receiver_and_export(
        &self,
        config: HpkeConfig,
        enc: &[u8],
        secret: &[u8],
        info: &[u8],
        context: &[u8],
        length: usize,
    ) -> Result<ExporterSecret, CryptoError> {
        let receiver = suite(config, None)?
            .setup_receiver(enc, &secret.into(), info, None, None, None)
            .map_err(|_| CryptoError::ReceiverSetupError)?;
        let secret = receiver.export(context, length).map_err(|_| CryptoError::ExporterError)?;
        Ok(secret.into())
    }

    fn derive_hpke_keypair(
        &self,
        config: HpkeConfig,
        ikm: &[u8],
    ) -> Result<HpkeKeyPair, CryptoError> {
        let (private, public) = suite(config, None)?
            .derive_key_pair(ikm)
            .map_err(|_| CryptoError::InvalidLength)?
            .into_keys();
        Ok(HpkeKeyPair { private: private.as_slice().into(), public: public.as_slice().to_vec() })
    }
}
