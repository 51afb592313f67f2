//! FNV hashes, in the variants that Tempo's formats fix.
//!
//! Bloom shards, ring tokens and span tokens use FNV-1 (multiply, then xor); scope keys use
//! FNV-1a (xor, then multiply). Confusing the two finds nothing, silently.

const OFFSET_32: u32 = 0x811c_9dc5;
const PRIME_32: u32 = 0x0100_0193;
const OFFSET_64: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME_64: u64 = 0x0000_0100_0000_01b3;

/// FNV-1, 32 bits, over several slices as if they were one.
pub fn fnv1_32(parts: &[&[u8]]) -> u32 {
    parts
        .iter()
        .flat_map(|part| part.iter())
        .fold(OFFSET_32, |hash, &byte| {
            hash.wrapping_mul(PRIME_32) ^ u32::from(byte)
        })
}

/// FNV-1, 64 bits, over several slices as if they were one.
pub fn fnv1_64(parts: &[&[u8]]) -> u64 {
    parts
        .iter()
        .flat_map(|part| part.iter())
        .fold(OFFSET_64, |hash, &byte| {
            hash.wrapping_mul(PRIME_64) ^ u64::from(byte)
        })
}

/// FNV-1a, 32 bits.
pub fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(OFFSET_32, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(PRIME_32)
    })
}

/// The ring token of a trace: decides its partition.
pub fn trace_token(tenant: &str, trace_id: &crate::TraceId) -> u32 {
    fnv1_32(&[tenant.as_bytes(), trace_id.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_values_of_the_format() {
        let one = crate::TraceId::from_padded(&[1]);
        assert_eq!(fnv1_32(&[one.as_bytes()]), 1_768_495_364);
        let id: crate::TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse().unwrap();
        assert_eq!(fnv1_32(&[id.as_bytes()]), 2_613_266_469);
    }
}
