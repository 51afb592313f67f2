//! The bloom filter over a block's trace ids: `bloom-0` … `bloom-(N-1)`.
//!
//! Owns sizing, sharding, hashing and the file format of a shard, bit for bit those of Tempo
//! (`tempodb/encoding/common/bloom.go`, which stores the filters of bits-and-blooms/bloom 3.7).
//! Must never know where shards are kept.

use bytes::Bytes;
use tempo_model::{TraceId, hash};

/// Tempo's default for [`BloomParameters::new`]: one in a hundred absent ids passes.
pub const DEFAULT_FALSE_POSITIVE: f64 = 0.01;
/// Tempo's default for [`BloomParameters::new`], in bytes.
pub const DEFAULT_SHARD_SIZE_BYTES: u32 = 100 * 1024;
/// Most shards of a block; beyond it the false-positive rate rises.
pub const MAX_SHARDS: u32 = 1000;
/// What `bloomShards` 0 in an old `meta.json` stands for.
pub const LEGACY_SHARDS: u32 = 10;

const HEADER_BYTES: usize = 24;

/// Number of shards and their shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BloomParameters {
    /// Shards of the block, at least 1.
    pub shards: u32,
    /// Bits of every shard.
    pub bits_per_shard: u64,
    /// Bits set per id.
    pub hashes: u64,
}

impl BloomParameters {
    /// The shape for `expected_traces` ids (0 counts as 1), a false-positive rate within
    /// (0, 1) and shards of `shard_size_bytes`. Rates outside are read as
    /// [`DEFAULT_FALSE_POSITIVE`], a size of 0 as [`DEFAULT_SHARD_SIZE_BYTES`].
    pub fn new(false_positive: f64, shard_size_bytes: u32, expected_traces: u64) -> Self {
        let rate = if false_positive > 0.0 && false_positive < 1.0 {
            false_positive
        } else {
            DEFAULT_FALSE_POSITIVE
        };
        let shard_size_bytes = match shard_size_bytes {
            0 => DEFAULT_SHARD_SIZE_BYTES,
            size => size,
        };
        let bits_per_shard = u64::from(shard_size_bytes) * 8;
        let (bits, hashes) = estimate(rate, expected_traces.max(1));
        let shards = bits
            .div_ceil(bits_per_shard)
            .clamp(1, u64::from(MAX_SHARDS));
        Self {
            shards: shards as u32,
            bits_per_shard,
            hashes,
        }
    }
}

/// Bits and hashes of one filter for `ids` ids.
fn estimate(rate: f64, ids: u64) -> (u64, u64) {
    let ids = ids as f64;
    let bits = (-ids * rate.ln() / std::f64::consts::LN_2.powi(2)).ceil();
    let hashes = (std::f64::consts::LN_2 * bits / ids).ceil();
    (bits as u64, hashes as u64)
}

/// The shard that an id belongs to, of `shards` (0 counts as [`LEGACY_SHARDS`]).
pub fn shard_of(id: &TraceId, shards: u32) -> u32 {
    let shards = if shards == 0 { LEGACY_SHARDS } else { shards };
    hash::fnv1_32(&[id.as_bytes()]) % shards
}

/// The bits of an id: an endless sequence of 64-bit positions, to be taken modulo the filter's
/// bits.
fn locations(id: &TraceId) -> impl Iterator<Item = u64> {
    let (h0, h1) = murmur3_128(id.as_bytes(), None);
    let (h2, h3) = murmur3_128(id.as_bytes(), Some(1));
    let base = [h0, h1];
    // i + i mod 2 walks 0, 2, 2, 4, 4, 6 …: modulo 4 and halved it alternates in pairs.
    let step = [h2, h3];
    (0_u64..).map(move |i| {
        let pair = ((i + i % 2) % 4 / 2) as usize;
        base[(i % 2) as usize].wrapping_add(i.wrapping_mul(step[pair]))
    })
}

/// MurmurHash3 x64 128, seed 0, of the id and perhaps one byte after it.
fn murmur3_128(id: &[u8; 16], tail: Option<u8>) -> (u64, u64) {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let both = u128::from_le_bytes(*id);
    let mix1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let scramble = |h: u64| {
        let h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ (h >> 33)
    };
    let mut h1 = mix1(both as u64)
        .rotate_left(27)
        .wrapping_mul(5)
        .wrapping_add(0x52dc_e729);
    let mut h2 = mix2((both >> 64) as u64)
        .rotate_left(31)
        .wrapping_add(h1)
        .wrapping_mul(5)
        .wrapping_add(0x3849_5ab5);
    let mut len = 16;
    if let Some(byte) = tail {
        h1 ^= mix1(u64::from(byte));
        len += 1;
    }
    h1 ^= len;
    h2 ^= len;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    h1 = scramble(h1);
    h2 = scramble(h2);
    h1 = h1.wrapping_add(h2);
    (h1, h2.wrapping_add(h1))
}

/// Collects the ids of a block that is being written.
#[derive(Debug, Clone)]
pub struct BloomBuilder {
    parameters: BloomParameters,
    words: Vec<u64>,
    words_per_shard: usize,
}

impl BloomBuilder {
    /// An empty filter. Holds all shards in memory: `shards × bits / 8` bytes.
    pub fn new(parameters: BloomParameters) -> Self {
        let words_per_shard = parameters.bits_per_shard.div_ceil(64) as usize;
        Self {
            parameters,
            words: vec![0; words_per_shard * parameters.shards as usize],
            words_per_shard,
        }
    }

    /// The shape that was asked for.
    pub fn parameters(&self) -> BloomParameters {
        self.parameters
    }

    /// Adds an id.
    pub fn add(&mut self, id: &TraceId) {
        let shard = shard_of(id, self.parameters.shards) as usize;
        let words = &mut self.words[shard * self.words_per_shard..][..self.words_per_shard];
        for location in locations(id).take(self.parameters.hashes as usize) {
            let bit = location % self.parameters.bits_per_shard;
            words[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }

    /// The content of the shard files, in order.
    pub fn finish(self) -> Vec<Bytes> {
        self.words
            .chunks_exact(self.words_per_shard)
            .map(|words| {
                let mut file = Vec::with_capacity(HEADER_BYTES + words.len() * 8);
                let BloomParameters {
                    bits_per_shard,
                    hashes,
                    ..
                } = self.parameters;
                for number in [bits_per_shard, hashes, bits_per_shard] {
                    file.extend_from_slice(&number.to_be_bytes());
                }
                for word in words {
                    file.extend_from_slice(&word.to_be_bytes());
                }
                Bytes::from(file)
            })
            .collect()
    }
}

/// Why a shard file cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BloomError {
    /// Shorter than the header, or than the bits that the header promises.
    #[error("bloom shard holds {got} bytes where {needed} are needed")]
    Truncated {
        /// Bytes of the file.
        got: usize,
        /// Bytes that the header asks for.
        needed: u64,
    },
    /// A filter of no bits or no hashes.
    #[error("bloom shard with {bits} bits and {hashes} hashes")]
    Empty {
        /// Bits of the filter.
        bits: u64,
        /// Hashes of the filter.
        hashes: u64,
    },
}

/// Most hashes that a shard read from storage may ask for; Tempo's own have 7 for a rate of 0.01.
const MAX_HASHES: u64 = 64;

/// One shard file, ready to be asked.
#[derive(Debug, Clone)]
pub struct BloomShard {
    file: Bytes,
    bits: u64,
    hashes: u64,
}

impl BloomShard {
    /// Checks the header of a shard file. Any number of bits and up to 64 hashes are taken as they
    /// are.
    pub fn parse(file: Bytes) -> Result<Self, BloomError> {
        let number = |index: usize| {
            file.get(index * 8..index * 8 + 8)
                .and_then(|bytes| bytes.try_into().ok())
                .map(u64::from_be_bytes)
        };
        let (Some(filter_bits), Some(hashes), Some(set_bits)) = (number(0), number(1), number(2))
        else {
            return Err(BloomError::Truncated {
                got: file.len(),
                needed: HEADER_BYTES as u64,
            });
        };
        // The filter indexes its bit set modulo its own size.
        let bits = filter_bits;
        if bits == 0 || bits > set_bits || hashes == 0 || hashes > MAX_HASHES {
            return Err(BloomError::Empty { bits, hashes });
        }
        let needed = set_bits
            .div_ceil(64)
            .saturating_mul(8)
            .saturating_add(HEADER_BYTES as u64);
        if (file.len() as u64) < needed {
            return Err(BloomError::Truncated {
                got: file.len(),
                needed,
            });
        }
        Ok(Self { file, bits, hashes })
    }

    /// Whether the id may be in the block; never false for one that is.
    pub fn may_contain(&self, id: &TraceId) -> bool {
        locations(id).take(self.hashes as usize).all(|location| {
            let bit = location % self.bits;
            // Words are big endian: bit j of a word stands in byte 7 − j/8.
            let byte = HEADER_BYTES + (bit / 64 * 8 + 7 - bit % 64 / 8) as usize;
            self.file[byte] >> (bit % 8) & 1 == 1
        })
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        self.file.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(hex: &str) -> TraceId {
        hex.parse().unwrap()
    }

    #[test]
    fn shards_by_fnv_1() {
        assert_eq!(shard_of(&id("1"), 3), 2);
        assert_eq!(shard_of(&id("1"), 10), 4);
        assert_eq!(shard_of(&id("1"), 0), 4, "0 is the legacy count of 10");
        let other = id("4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(shard_of(&other, 3), 0);
        assert_eq!(shard_of(&other, 10), 9);
    }

    #[test]
    fn locations_are_those_of_the_format() {
        let first: Vec<u64> = locations(&id("1")).take(7).collect();
        assert_eq!(
            first,
            [
                2_589_554_819_249_504_804,
                17_006_706_486_246_333_696,
                17_934_714_038_210_657_154,
                3_293_720_893_552_490_869,
                12_982_424_248_674_700_884,
                10_803_536_776_749_535_164,
                11_731_544_328_713_858_622,
            ]
        );
        let other: Vec<u64> = locations(&id("4bf92f3577b34da6a3ce929d0e0e4736"))
            .take(3)
            .collect();
        assert_eq!(
            other,
            [
                12_037_933_461_819_987_295,
                7_483_526_949_669_288_898,
                9_792_893_526_869_454_379,
            ]
        );
    }

    #[test]
    fn sizes_follow_the_expected_traces() {
        for (ids, bits, shards) in [
            (1, 10, 1),
            (1000, 9586, 1),
            (100_000, 958_506, 2),
            (1_000_000, 9_585_059, 12),
            (6_000_000, 57_510_351, 71),
        ] {
            assert_eq!(estimate(0.01, ids), (bits, 7), "{ids}");
            let parameters = BloomParameters::new(0.01, DEFAULT_SHARD_SIZE_BYTES, ids);
            assert_eq!(parameters.shards, shards, "{ids}");
            assert_eq!(parameters.bits_per_shard, 819_200);
        }
        assert_eq!(BloomParameters::new(0.01, 0, 0).shards, 1);
        assert_eq!(
            BloomParameters::new(0.01, 1, u64::from(u32::MAX)).shards,
            MAX_SHARDS
        );
    }

    #[test]
    fn a_shard_file_is_header_and_big_endian_words() {
        let mut builder = BloomBuilder::new(BloomParameters::new(0.01, 20, 50));
        builder.add(&id("1"));
        let files = builder.finish();
        let header = "00000000000000a0000000000000000700000000000000a0";
        let hex = |file: &Bytes| file.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(files.len(), 3);
        assert_eq!(hex(&files[0]), format!("{header}{}", "0".repeat(48)));
        assert_eq!(hex(&files[1]), format!("{header}{}", "0".repeat(48)));
        assert_eq!(
            hex(&files[2]),
            format!("{header}400000040000001010000001001000000000000000200000")
        );

        let empty = BloomBuilder::new(BloomParameters::new(0.01, 0, 1)).finish();
        assert_eq!(empty[0].len(), 102_424);
        assert_eq!(
            hex(&empty[0])[..48],
            *"00000000000c8000000000000000000700000000000c8000"
        );
    }

    #[test]
    fn every_added_id_is_found_and_few_others_are() {
        let mut builder = BloomBuilder::new(BloomParameters::new(0.01, 1000, 10_000));
        let ids: Vec<TraceId> = (0..10_000_u128)
            .map(|n| {
                TraceId::from_bytes((n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c)).to_be_bytes())
            })
            .collect();
        for id in &ids {
            builder.add(id);
        }
        let shards: Vec<BloomShard> = builder
            .finish()
            .into_iter()
            .map(|file| BloomShard::parse(file).unwrap())
            .collect();
        let may = |id: &TraceId| shards[shard_of(id, shards.len() as u32) as usize].may_contain(id);
        assert!(ids.iter().all(may));
        let absent = (0..10_000_u128)
            .map(|n| TraceId::from_bytes((u128::MAX - n).to_be_bytes()))
            .filter(may)
            .count();
        assert!(absent < 300, "{absent} of 10000 absent ids pass");
    }

    #[test]
    fn broken_files_are_refused() {
        let parse = |bytes: &[u8]| BloomShard::parse(Bytes::copy_from_slice(bytes)).err();
        assert_eq!(
            parse(&[0; 10]),
            Some(BloomError::Truncated {
                got: 10,
                needed: 24
            })
        );
        assert_eq!(
            parse(&[0; 24]),
            Some(BloomError::Empty { bits: 0, hashes: 0 })
        );
        let mut huge = Vec::new();
        for number in [u64::MAX, 7, u64::MAX] {
            huge.extend_from_slice(&number.to_be_bytes());
        }
        assert!(matches!(parse(&huge), Some(BloomError::Truncated { .. })));
    }

    #[test]
    fn shards_that_tempo_wrote_hold_the_ids_of_their_block() {
        let block = "blocks/vparquet4/single-tenant/f4d8cfb0-8d16-48c1-bbd7-31a78c75b6cb";
        let file = std::fs::read(crate::testing::golden(&format!("{block}/bloom-0"))).unwrap();
        let shard = BloomShard::parse(Bytes::from(file.clone())).unwrap();
        let ids = crate::testing::trace_ids_of(&format!("{block}/data.parquet"));
        assert_eq!(ids.len(), 132);
        assert!(ids.iter().all(|id| shard.may_contain(id)));

        let mut builder = BloomBuilder::new(BloomParameters::new(
            DEFAULT_FALSE_POSITIVE,
            DEFAULT_SHARD_SIZE_BYTES,
            ids.len() as u64,
        ));
        ids.iter().for_each(|id| builder.add(id));
        assert_eq!(builder.finish(), [Bytes::from(file)], "byte for byte");
    }
}
