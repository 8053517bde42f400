//! RSA moduli of the Infineon library that CVE-2017-15361 (ROCA) is about: whoever has one can compute the private key.
//!
//! Both primes of such a modulus are powers of 65537 modulo the product of the first primes (Nemec et al., "The Return of
//! Coppersmith's Attack", 2017, section 2), so the modulus is one too, and that can be seen without factoring it. A
//! modulus of random primes passes for one with a probability of 2^-83.

/// The primes whose product was used for keys of 992 bits; longer keys use these and more. Without 2, which tells nothing.
const PRIMES: [u32; 70] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167, 173, 179, 181, 191, 193, 197, 199, 211, 223,
    227, 229, 233, 239, 241, 251, 257, 263, 269, 271, 277, 281, 283, 293, 307, 311, 313, 317, 331, 337, 347,
    349, 353,
];

/// Whether a big-endian modulus has the fingerprint.
pub(crate) fn has_fingerprint(modulus: &[u8]) -> bool {
    PRIMES.into_iter().all(|prime| is_power_of_65537(remainder(modulus, prime), prime))
}

fn remainder(modulus: &[u8], prime: u32) -> u32 {
    modulus.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime)
}

fn is_power_of_65537(value: u32, prime: u32) -> bool {
    let powers = std::iter::successors(Some(1), |power| Some(power * (65_537 % prime) % prime));
    // There are at most `prime - 1` of them before they repeat.
    powers.take(prime as usize).any(|power| power == value)
}
