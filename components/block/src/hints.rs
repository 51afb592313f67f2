//! What our writer tells of dictionaries beyond what the format does.
//!
//! Owns one entry of the footer's key-value metadata. It holds small dictionaries as they are, so
//! that who looks for a name reads nothing but the footer, and of large ones where the fragments
//! lie that Snappy compresses on their own, so that a few texts are found without decompressing all
//! of them. Other writers leave it out and other readers pass over it: it saves reads and work,
//! and what is damaged, or told of another dictionary than the file has, counts as absent. Must
//! never be needed.

use base64::{Engine, engine::general_purpose::STANDARD};
use tempo_model::otlp::write_varint;

/// The key of the entry. Another form of the value needs another key.
pub(crate) const KEY: &str = "tempostack.dictionaries.1";

/// Bytes that Snappy compresses together: nothing refers to what lies before its fragment.
pub(crate) const FRAGMENT_BYTES: usize = 64 * 1024;

/// Dictionaries up to this size are told as they are, before compression.
const MAX_WHOLE_BYTES: usize = 4 * 1024;
/// All dictionaries of a row group that are told as they are.
const MAX_WHOLE_BYTES_OF_GROUP: usize = 32 * 1024;
/// Smaller dictionaries are decompressed at once.
const MIN_FRAGMENTED_BYTES: usize = 2 * FRAGMENT_BYTES;
/// Most bytes of the whole value before it is compressed; more is not told, and what claims more is
/// ignored.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Longest dictionary that is read, as of pages.
const MAX_PLAIN_BYTES: u32 = 1 << 30;

/// A fragment of a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// Where its compressed bytes begin in the page, header included. The next one follows.
    pub(crate) stored_start: u32,
    /// CRC-32 of its compressed bytes: whoever reads few of them cannot check that of the page.
    pub(crate) checksum: u32,
    /// The first entry that begins in it or later.
    pub(crate) first_entry: u32,
    /// Where that entry begins within the fragment; means nothing if it begins later.
    pub(crate) first_start: u32,
}

/// What is told of one dictionary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DictionaryHint {
    /// The entries, PLAIN, and their number.
    Whole { entries: u32, plain: Box<[u8]> },
    /// How many entries there are, how long they are decompressed, and all fragments.
    Fragments {
        entries: u32,
        plain_bytes: u32,
        fragments: Box<[Fragment]>,
    },
}

impl DictionaryHint {
    /// Of the PLAIN values of a dictionary, its page, and where in the page fragments begin, if
    /// they are compressed in fragments.
    pub(crate) fn of(
        plain: &[u8],
        entries: usize,
        page: &[u8],
        stored_starts: &[usize],
    ) -> Option<Self> {
        let entries = u32::try_from(entries).ok()?;
        if plain.len() <= MAX_WHOLE_BYTES {
            return Some(Self::Whole {
                entries,
                plain: plain.into(),
            });
        }
        if plain.len() < MIN_FRAGMENTED_BYTES || stored_starts.is_empty() {
            return None;
        }
        let mut fragments = Vec::with_capacity(stored_starts.len());
        let (mut entry, mut at) = (0, 0);
        let ends = stored_starts.iter().skip(1).copied().chain([page.len()]);
        let stored = stored_starts.iter().copied().zip(ends);
        for ((stored_start, stored_end), start) in stored.zip((0..).step_by(FRAGMENT_BYTES)) {
            while at < start {
                let (len, _) = plain.get(at..)?.split_first_chunk::<4>()?;
                at += 4 + u32::from_le_bytes(*len) as usize;
                entry += 1;
            }
            fragments.push(Fragment {
                stored_start: u32::try_from(stored_start).ok()?,
                checksum: crc32fast::hash(page.get(stored_start..stored_end)?),
                first_entry: entry,
                first_start: u32::try_from(at - start).ok()?,
            });
        }
        Some(Self::Fragments {
            entries,
            plain_bytes: u32::try_from(plain.len()).ok()?,
            fragments: fragments.into(),
        })
    }

    fn whole_bytes(&self) -> usize {
        match self {
            Self::Whole { plain, .. } => plain.len(),
            Self::Fragments { .. } => 0,
        }
    }
}

/// What is told of the dictionary of one leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    /// Position of the leaf.
    leaf: u32,
    /// Length of the dictionary's page: whoever makes the dictionary anew and keeps what is told of
    /// the old one is found out.
    page_bytes: u32,
    hint: DictionaryHint,
}

/// What is told of the dictionaries of one row group, ascending by leaf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GroupHints(Vec<Told>);

impl GroupHints {
    /// Adds what is told of a leaf, whose dictionary's page has so many bytes; no more than there is
    /// room for.
    pub(crate) fn add(&mut self, leaf: usize, page_bytes: u64, hint: DictionaryHint) {
        let whole: usize = self.0.iter().map(|told| told.hint.whole_bytes()).sum();
        if whole + hint.whole_bytes() > MAX_WHOLE_BYTES_OF_GROUP {
            return;
        }
        if let (Ok(leaf), Ok(page_bytes)) = (u32::try_from(leaf), u32::try_from(page_bytes)) {
            let at = self.0.partition_point(|known| known.leaf < leaf);
            let told = Told {
                leaf,
                page_bytes,
                hint,
            };
            self.0.insert(at, told);
        }
    }

    /// Forgets what is told of a leaf unless its dictionary's page has as many bytes as it had;
    /// `page_bytes` tells that, `None` where there is no such page.
    pub(crate) fn keep_fitting(&mut self, page_bytes: impl Fn(usize) -> Option<u64>) {
        self.0
            .retain(|told| page_bytes(told.leaf as usize) == Some(u64::from(told.page_bytes)));
    }

    /// What is told of a leaf.
    pub(crate) fn of(&self, leaf: usize) -> Option<&DictionaryHint> {
        let at = self
            .0
            .binary_search_by_key(&leaf, |told| told.leaf as usize);
        self.0.get(at.ok()?).map(|told| &told.hint)
    }

    /// Heap bytes held, for caches.
    pub(crate) fn heap_bytes(&self) -> usize {
        let of_hint = |hint: &DictionaryHint| match hint {
            DictionaryHint::Whole { plain, .. } => plain.len(),
            DictionaryHint::Fragments { fragments, .. } => size_of_val(&**fragments),
        };
        let told = self.0.iter();
        let told: usize = told
            .map(|told| size_of::<Told>() + of_hint(&told.hint))
            .sum();
        size_of::<Self>() + told
    }
}

/// The value of the entry; `None` when there is nothing to tell.
pub(crate) fn encode(groups: &[GroupHints]) -> Option<String> {
    if groups.iter().all(|group| group.0.is_empty()) {
        return None;
    }
    let mut out = Vec::new();
    let number = |out: &mut Vec<u8>, value: usize| write_varint(out, value as u64);
    number(&mut out, groups.len());
    for group in groups {
        number(&mut out, group.0.len());
        for told in &group.0 {
            number(&mut out, told.leaf as usize);
            number(&mut out, told.page_bytes as usize);
            match &told.hint {
                DictionaryHint::Whole { entries, plain } => {
                    number(&mut out, 0);
                    number(&mut out, *entries as usize);
                    number(&mut out, plain.len());
                    out.extend_from_slice(plain);
                }
                DictionaryHint::Fragments {
                    entries,
                    plain_bytes,
                    fragments,
                } => {
                    number(&mut out, fragments.len());
                    number(&mut out, *entries as usize);
                    number(&mut out, *plain_bytes as usize);
                    let (mut stored, mut entry) = (0, 0);
                    for fragment in fragments {
                        out.extend_from_slice(&fragment.checksum.to_le_bytes());
                        number(&mut out, (fragment.stored_start - stored) as usize);
                        number(&mut out, (fragment.first_entry - entry) as usize);
                        number(&mut out, fragment.first_start as usize);
                        (stored, entry) = (fragment.stored_start, fragment.first_entry);
                    }
                }
            }
        }
    }
    if out.len() > MAX_BYTES {
        return None;
    }
    let compressed = snap::raw::Encoder::new().compress_vec(&out).ok()?;
    Some(STANDARD.encode(compressed))
}

/// The value of the entry of a file of `row_groups`, read; nothing when it is damaged.
pub(crate) fn decode(value: &[u8], row_groups: usize) -> Option<Vec<GroupHints>> {
    let compressed = STANDARD.decode(value).ok()?;
    if snap::raw::decompress_len(&compressed).ok()? > MAX_BYTES {
        return None;
    }
    let bytes = snap::raw::Decoder::new().decompress_vec(&compressed).ok()?;
    let mut rest = &*bytes;
    if count(&mut rest)? != row_groups {
        return None;
    }
    let mut hints = Vec::new();
    for _ in 0..row_groups {
        hints.push(group(&mut rest)?);
    }
    rest.is_empty().then_some(hints)
}

fn group(rest: &mut &[u8]) -> Option<GroupHints> {
    let leaves = count(rest)?;
    let mut group = GroupHints::default();
    for _ in 0..leaves {
        let leaf = number(rest)?;
        if group.0.last().is_some_and(|before| before.leaf >= leaf) {
            return None;
        }
        let page_bytes = number(rest)?;
        let fragments = count(rest)?;
        let entries = number(rest)?;
        let hint = if fragments == 0 {
            let len = number(rest)? as usize;
            let (plain, others) = rest.split_at_checked(len)?;
            *rest = others;
            if len > MAX_WHOLE_BYTES || count_plain(plain)? != entries {
                return None;
            }
            DictionaryHint::Whole {
                entries,
                plain: plain.into(),
            }
        } else {
            let plain_bytes = number(rest)?;
            let mut all: Vec<Fragment> = Vec::new();
            for _ in 0..fragments {
                let (checksum, others) = rest.split_first_chunk::<4>()?;
                *rest = others;
                let (stored, entry) = all
                    .last()
                    .map_or((0, 0), |last| (last.stored_start, last.first_entry));
                all.push(Fragment {
                    checksum: u32::from_le_bytes(*checksum),
                    stored_start: stored.checked_add(number(rest)?)?,
                    first_entry: entry.checked_add(number(rest)?)?,
                    first_start: number(rest)?,
                });
            }
            let first = all.first()?;
            if all.len() != (plain_bytes as usize).div_ceil(FRAGMENT_BYTES)
                || plain_bytes > MAX_PLAIN_BYTES
                || entries > plain_bytes / 4
                || (first.first_entry, first.first_start) != (0, 0)
            {
                return None;
            }
            DictionaryHint::Fragments {
                entries,
                plain_bytes,
                fragments: all.into(),
            }
        };
        group.0.push(Told {
            leaf,
            page_bytes,
            hint,
        });
    }
    Some(group)
}

/// How many byte strings there are, one after the other.
fn count_plain(mut plain: &[u8]) -> Option<u32> {
    let mut count = 0;
    while !plain.is_empty() {
        let (len, rest) = plain.split_first_chunk::<4>()?;
        plain = rest.get(u32::from_le_bytes(*len) as usize..)?;
        count += 1;
    }
    Some(count)
}

/// A number of things that follow: each takes a byte at least.
fn count(rest: &mut &[u8]) -> Option<usize> {
    let count = number(rest)? as usize;
    (count <= rest.len()).then_some(count)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u64;
    for shift in (0..35).step_by(7) {
        let (&byte, others) = rest.split_first()?;
        *rest = others;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return u32::try_from(value).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(texts: impl Iterator<Item = String>) -> (Vec<u8>, usize) {
        let mut plain = Vec::new();
        let mut count = 0;
        for text in texts {
            plain.extend_from_slice(&(text.len() as u32).to_le_bytes());
            plain.extend_from_slice(text.as_bytes());
            count += 1;
        }
        (plain, count)
    }

    fn hints() -> Vec<GroupHints> {
        let (small, small_count) = plain(["a".to_owned(), String::new()].into_iter());
        // One entry spans several fragments.
        let texts = (0..3_000).map(|at| "x".repeat(if at == 700 { 300_000 } else { at % 90 }));
        let (large, large_count) = plain(texts);
        let fragments = large.len().div_ceil(FRAGMENT_BYTES);
        let starts: Vec<usize> = (0..fragments).map(|at| at * 100 + 3).collect();
        let page = vec![7; fragments * 100];
        let large = DictionaryHint::of(&large, large_count, &page, &starts);
        let mut group = GroupHints::default();
        group.add(7, 4_000_000, large.unwrap());
        group.add(
            2,
            9,
            DictionaryHint::of(&small, small_count, &[], &[]).unwrap(),
        );
        vec![GroupHints::default(), group]
    }

    #[test]
    fn hints_are_read_as_they_were_written() {
        let hints = hints();
        let value = encode(&hints).unwrap();
        assert_eq!(decode(value.as_bytes(), 2).unwrap(), hints);
        assert_eq!(decode(value.as_bytes(), 3), None);
        assert_eq!(encode(&[GroupHints::default()]), None);
        assert_eq!(hints[1].of(3), None);
        let Some(DictionaryHint::Fragments { fragments, .. }) = hints[1].of(7) else {
            panic!("fragments");
        };
        assert!(fragments.len() > 5);
        assert_eq!((fragments[0].first_entry, fragments[0].first_start), (0, 0));
        let same_entry = |pair: &[Fragment]| pair[0].first_entry == pair[1].first_entry;
        assert!(fragments.windows(2).any(same_entry));
    }

    #[test]
    fn what_is_neither_small_nor_in_fragments_is_not_told() {
        let (text, count) = plain(std::iter::once("y".repeat(MAX_WHOLE_BYTES)));
        assert_eq!(DictionaryHint::of(&text, count, &[0; 9], &[3]), None);
        let (text, count) = plain(std::iter::once("y".repeat(MIN_FRAGMENTED_BYTES)));
        assert_eq!(DictionaryHint::of(&text, count, &[], &[]), None);
        let mut group = GroupHints::default();
        let (text, count) = plain(std::iter::once("z".repeat(MAX_WHOLE_BYTES - 4)));
        for leaf in 0..20 {
            group.add(leaf, 9, DictionaryHint::of(&text, count, &[], &[]).unwrap());
        }
        assert!(group.of(7).is_some() && group.of(8).is_none());
    }

    #[test]
    fn what_is_told_of_another_dictionary_is_forgotten() {
        let mut group = hints().remove(1);
        group.keep_fitting(|leaf| [None, None, Some(9)].get(leaf).copied().flatten());
        assert!(group.of(2).is_some() && group.of(7).is_none());
        group.keep_fitting(|_| Some(10));
        assert_eq!(group, GroupHints::default());
    }

    #[test]
    fn damage_counts_as_nothing() {
        let hints = hints();
        let value = encode(&hints).unwrap();
        let bytes = STANDARD.decode(&value).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x41;
            // Nothing, or other hints; never a panic.
            let _ = decode(STANDARD.encode(&damaged).as_bytes(), 2);
            let cut = STANDARD.encode(&bytes[..at]);
            assert_eq!(decode(cut.as_bytes(), 2), None);
        }
        assert_eq!(decode(b"not base64!", 2), None);
        let claims = snap::raw::Encoder::new().compress_vec(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        let claims = STANDARD.encode(claims.unwrap());
        assert_eq!(decode(claims.as_bytes(), u32::MAX as usize), None);
    }
}
