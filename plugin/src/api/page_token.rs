//! Page tokens: sealed, so that they tell nothing and nobody can make them, and bound to the query that they continue.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::error::{ApiError, ErrorReason};

/// Form of the tokens of this release; the first byte of each.
const VERSION: u8 = 1;

/// Seals page tokens.
pub struct PageTokens(RandomizedNonceKey);

impl PageTokens {
    /// Bytes of a secret.
    pub const SECRET_BYTES: usize = 32;

    /// Tokens under a secret, which all plugins on a store share.
    ///
    /// # Errors
    /// The library refuses the secret.
    pub fn new(secret: &[u8; Self::SECRET_BYTES]) -> Result<Self, ApiError> {
        RandomizedNonceKey::new(&AES_256_GCM, secret).map(Self).map_err(|_| fault())
    }

    /// Token that continues `query` after a resource.
    pub(super) fn seal(&self, query: &[u8], last: Uuid) -> Result<String, ApiError> {
        let mut sealed = last.as_bytes().to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(query), &mut sealed).map_err(|_| fault())?;
        Ok(URL_SAFE_NO_PAD.encode([&[VERSION][..], nonce.as_ref(), &sealed].concat()))
    }

    /// The resource after which `query` continues.
    pub(super) fn open(&self, query: &[u8], token: &str) -> Result<Uuid, ApiError> {
        self.opened(query, token).ok_or_else(|| {
            ApiError::invalid(
                "page_token",
                "is not one that an answer to this query contained: send the query of that answer again, with its \
                 filters, or begin without a token",
            )
        })
    }

    fn opened(&self, query: &[u8], token: &str) -> Option<Uuid> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (nonce, sealed) = bytes.strip_prefix(&[VERSION])?.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let last = self.0.open_in_place(nonce, Aad::from(query), &mut sealed).ok()?;
        Uuid::from_slice(last).ok()
    }
}

/// A failure of the library, which it does not explain.
fn fault() -> ApiError {
    ApiError::new(ErrorReason::Internal, "cannot seal page tokens")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(secret: u8) -> PageTokens {
        PageTokens::new(&[secret; PageTokens::SECRET_BYTES]).unwrap()
    }

    proptest! {
        #[test]
        fn a_token_opens_for_its_query_alone_and_shows_nothing(
            id in any::<u128>(),
            query in any::<Vec<u8>>(),
            other in any::<Vec<u8>>(),
            at in any::<prop::sample::Index>(),
            flip in 1..=u8::MAX,
            made in ".{0,80}",
        ) {
            let id = Uuid::from_u128(id);
            let token = tokens(1).seal(&query, id).unwrap();
            prop_assert_eq!(tokens(1).open(&query, &token).unwrap(), id);
            prop_assert!(other == query || tokens(1).open(&other, &token).is_err());
            prop_assert!(tokens(2).open(&query, &token).is_err());
            let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
            prop_assert!(bytes.windows(4).all(|some| !id.as_bytes().windows(4).any(|part| part == some)));
            bytes[at.index(token.len() * 3 / 4)] ^= flip;
            let hand_made = [URL_SAFE_NO_PAD.encode(bytes), made, URL_SAFE_NO_PAD.encode(id.as_bytes())];
            for token in hand_made {
                prop_assert!(tokens(1).open(&query, &token).is_err());
            }
        }
    }
}
