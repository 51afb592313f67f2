//! Values of a page body: integers, doubles, booleans, byte strings, dictionaries.
//!
//! Owns the encodings PLAIN, RLE (of booleans), DELTA_BINARY_PACKED, DELTA_LENGTH_BYTE_ARRAY,
//! DELTA_BYTE_ARRAY and RLE_DICTIONARY of the Parquet specification. Bodies are borrowed, results go into buffers of the caller.

use std::sync::Arc;

use tempo_table::StringDict;

use super::{
    Malformed,
    bits::Bits,
    delta,
    footer::Physical,
    hybrid,
    page::{Encoding, Page},
};

const UNSUPPORTED: Malformed = Malformed("encoding is not supported for this type");

/// Integers (32 bits are widened) into `out`, which has room for exactly the page's values.
pub(crate) fn ints(
    physical: Physical,
    encoding: Encoding,
    body: &[u8],
    dictionary: &[i64],
    out: &mut [i64],
) -> Result<(), Malformed> {
    if out.is_empty() {
        return Ok(());
    }
    match (encoding, physical) {
        (Encoding::Plain, Physical::Int64) => plain_i64(body, out),
        (Encoding::Plain, Physical::Int32) => plain_i32(body, out),
        (Encoding::Delta, Physical::Int64) => delta::decode(body, out).map(drop),
        (Encoding::Delta, Physical::Int32) => {
            delta::decode(body, out)?;
            for value in out {
                *value = i64::from(*value as i32);
            }
            Ok(())
        }
        (Encoding::Dictionary, Physical::Int64 | Physical::Int32) => {
            let mut codes = Vec::with_capacity(out.len());
            hybrid::codes(body, out.len(), dictionary.len(), &mut codes)?;
            for (value, code) in out.iter_mut().zip(codes) {
                *value = dictionary.get(code as usize).copied().unwrap_or(0);
            }
            Ok(())
        }
        _ => Err(UNSUPPORTED),
    }
}

fn plain_i64(body: &[u8], out: &mut [i64]) -> Result<(), Malformed> {
    let body = body.get(..out.len() * 8).ok_or(Malformed("page is cut"))?;
    for (value, bytes) in out.iter_mut().zip(body.chunks_exact(8)) {
        *value = bytes.try_into().map_or(0, i64::from_le_bytes);
    }
    Ok(())
}

fn plain_i32(body: &[u8], out: &mut [i64]) -> Result<(), Malformed> {
    let body = body.get(..out.len() * 4).ok_or(Malformed("page is cut"))?;
    for (value, bytes) in out.iter_mut().zip(body.chunks_exact(4)) {
        *value = bytes
            .try_into()
            .map_or(0, |bytes| i64::from(i32::from_le_bytes(bytes)));
    }
    Ok(())
}

/// Doubles as their bits, into `out`, which has room for exactly the page's values.
pub(crate) fn doubles(
    encoding: Encoding,
    body: &[u8],
    dictionary: &[i64],
    out: &mut [i64],
) -> Result<(), Malformed> {
    match encoding {
        Encoding::Plain | Encoding::Dictionary => {
            ints(Physical::Int64, encoding, body, dictionary, out)
        }
        _ => Err(UNSUPPORTED),
    }
}

/// Reads whole pages of integers, or of doubles as their bits.
pub(crate) struct NumberPages {
    physical: Physical,
    dictionary: Arc<[i64]>,
    scratch: Vec<u8>,
    values: Vec<i64>,
}

impl NumberPages {
    pub(crate) fn new(physical: Physical, dictionary: Arc<[i64]>) -> Self {
        Self {
            physical,
            dictionary,
            scratch: Vec::new(),
            values: Vec::new(),
        }
    }

    /// The `count` values of a page, which holds no more.
    pub(crate) fn read(&mut self, page: &Page, count: usize) -> Result<&[i64], Malformed> {
        self.values.clear();
        self.values.resize(count, 0);
        let body = page.body(&mut self.scratch)?;
        let (encoding, out) = (page.encoding, self.values.as_mut_slice());
        match self.physical {
            Physical::Double => doubles(encoding, body, &self.dictionary, out)?,
            physical => ints(physical, encoding, body, &self.dictionary, out)?,
        }
        Ok(&self.values)
    }
}

/// Appends `count` booleans.
pub(crate) fn booleans(
    encoding: Encoding,
    body: &[u8],
    count: usize,
    out: &mut Bits,
) -> Result<(), Malformed> {
    match encoding {
        Encoding::Plain => {
            let body = body
                .get(..count.div_ceil(8))
                .ok_or(Malformed("page is cut"))?;
            let mut left = count;
            for bytes in body.chunks(8) {
                let mut padded = [0; 8];
                padded[..bytes.len()].copy_from_slice(bytes);
                let len = left.min(64);
                out.push_word(u64::from_le_bytes(padded) & super::bits::low_mask(len), len);
                left -= len;
            }
            Ok(())
        }
        Encoding::Rle if count > 0 => hybrid::booleans(body, count, out),
        Encoding::Rle => Ok(()),
        _ => Err(UNSUPPORTED),
    }
}

/// Most bytes that a page of byte strings which share prefixes may grow to.
const MAX_EXPANDED_BYTES: usize = 256 * 1024 * 1024;

/// The byte strings of a page: where each lies in the body.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    /// Start and end of each; reused from page to page.
    bounds: Vec<(u32, u32)>,
    lengths: Vec<i64>,
    /// The byte strings themselves, where the body holds only what differs from the one before.
    expanded: Option<Vec<u8>>,
}

impl Slices {
    /// Locates the `count` byte strings of a body that is not coded.
    pub(crate) fn locate(
        &mut self,
        encoding: Encoding,
        body: &[u8],
        count: usize,
    ) -> Result<(), Malformed> {
        self.bounds.clear();
        self.expanded = None;
        if count == 0 {
            return Ok(());
        }
        if u32::try_from(body.len()).is_err() {
            return Err(Malformed("page is too large"));
        }
        match encoding {
            Encoding::Plain => self.locate_plain(body, count),
            Encoding::DeltaLength => self.locate_delta_length(body, 0, count),
            Encoding::DeltaPrefix => self.expand(body, count),
            _ => Err(UNSUPPORTED),
        }
    }

    fn locate_plain(&mut self, body: &[u8], count: usize) -> Result<(), Malformed> {
        // Each takes its length of four bytes at least.
        if count > body.len() / 4 {
            return Err(Malformed("page is cut"));
        }
        self.bounds.reserve(count);
        let mut at = 0;
        for _ in 0..count {
            let text = plain_bytes(body, &mut at)?;
            self.bounds.push(((at - text.len()) as u32, at as u32));
        }
        Ok(())
    }

    fn locate_delta_length(
        &mut self,
        body: &[u8],
        from: usize,
        count: usize,
    ) -> Result<(), Malformed> {
        self.lengths.clear();
        self.lengths.resize(count, 0);
        let texts = delta::decode(body.get(from..).unwrap_or_default(), &mut self.lengths)?;
        self.bounds.reserve(count);
        let mut start = (body.len() - texts.len()) as u64;
        for &len in &self.lengths {
            let end = u64::try_from(len)
                .ok()
                .and_then(|len| start.checked_add(len))
                .filter(|&end| end <= body.len() as u64)
                .ok_or(Malformed("byte strings are longer than their page"))?;
            self.bounds.push((start as u32, end as u32));
            start = end;
        }
        Ok(())
    }

    /// DELTA_BYTE_ARRAY: how much of the string before is kept, then what follows it.
    fn expand(&mut self, body: &[u8], count: usize) -> Result<(), Malformed> {
        let mut kept = vec![0; count];
        let rest = delta::decode(body, &mut kept)?;
        self.locate_delta_length(body, body.len() - rest.len(), count)?;
        let mut expanded: Vec<u8> = Vec::with_capacity(body.len());
        let mut last = 0..0;
        for (bounds, kept) in self.bounds.iter_mut().zip(kept) {
            let kept = usize::try_from(kept)
                .ok()
                .filter(|&kept| kept <= last.len())
                .ok_or(Malformed("byte string keeps more than there was before it"))?;
            let suffix = body
                .get(bounds.0 as usize..bounds.1 as usize)
                .unwrap_or_default();
            let start = expanded.len();
            if start + kept + suffix.len() > MAX_EXPANDED_BYTES {
                return Err(Malformed("page is too large"));
            }
            expanded.extend_from_within(last.start..last.start + kept);
            expanded.extend_from_slice(suffix);
            last = start..expanded.len();
            *bounds = (last.start as u32, last.end as u32);
        }
        self.expanded = Some(expanded);
        Ok(())
    }

    /// Appends some of the byte strings of the body that was located, one after another, and their
    /// lengths.
    pub(crate) fn copy(
        &self,
        body: &[u8],
        range: std::ops::Range<usize>,
        bytes: &mut Vec<u8>,
        lengths: &mut Vec<i32>,
    ) -> Result<(), Malformed> {
        let cut = Malformed("page holds fewer values than its levels say");
        let body = self.expanded.as_deref().unwrap_or(body);
        let bounds = self.bounds.get(range).ok_or(cut)?;
        let (Some(&(first, _)), Some(&(_, last))) = (bounds.first(), bounds.last()) else {
            return Ok(());
        };
        let mut total = 0;
        lengths.extend(bounds.iter().map(|&(start, end)| {
            total += end - start;
            (end - start) as i32
        }));
        if total == last - first {
            bytes.extend_from_slice(body.get(first as usize..last as usize).ok_or(cut)?);
        } else {
            for &(start, end) in bounds {
                bytes.extend_from_slice(body.get(start as usize..end as usize).ok_or(cut)?);
            }
        }
        Ok(())
    }

    /// One of the byte strings of the body that was located.
    #[inline]
    pub(crate) fn get<'b>(&'b self, body: &'b [u8], index: usize) -> &'b [u8] {
        let body = self.expanded.as_deref().unwrap_or(body);
        self.bounds.get(index).map_or(&[], |&(start, end)| {
            body.get(start as usize..end as usize).unwrap_or_default()
        })
    }

    /// All of the body's byte strings as one, if each is `width` bytes long.
    pub(crate) fn fixed<'b>(&'b self, body: &'b [u8], width: usize) -> Option<&'b [u8]> {
        let body = self.expanded.as_deref().unwrap_or(body);
        let (&(start, _), &(_, end)) = (self.bounds.first()?, self.bounds.last()?);
        let apart = |&(start, end): &(u32, u32)| (end - start) as usize == width;
        let contiguous = (end - start) as usize == width * self.bounds.len();
        (contiguous && self.bounds.iter().all(apart))
            .then(|| body.get(start as usize..end as usize))
            .flatten()
    }
}

/// The byte string at `at` of a PLAIN body; moves `at` behind it.
#[inline]
fn plain_bytes<'b>(body: &'b [u8], at: &mut usize) -> Result<&'b [u8], Malformed> {
    let rest = body.get(*at..).unwrap_or_default();
    let (len, rest) = rest
        .split_first_chunk::<4>()
        .ok_or(Malformed("byte string is cut"))?;
    let len = u32::from_le_bytes(*len) as usize;
    let text = rest.get(..len).ok_or(Malformed("byte string is cut"))?;
    *at += 4 + len;
    Ok(text)
}

/// The entries of a PLAIN dictionary body of byte strings.
pub(crate) fn string_dictionary(body: &[u8], count: usize) -> Result<StringDict, Malformed> {
    if count > body.len() / 4 {
        return Err(Malformed("dictionary is cut"));
    }
    if u32::try_from(body.len()).is_err() {
        return Err(Malformed("dictionary is too large"));
    }
    let mut dict = StringDict::new();
    let mut at = 0;
    for _ in 0..count {
        dict.push(plain_bytes(body, &mut at)?);
    }
    Ok(dict)
}

/// Some entries of a PLAIN dictionary body of byte strings, by ascending position.
pub(crate) fn pick_strings(body: &[u8], positions: &[u32]) -> Result<StringDict, Malformed> {
    let mut picked = StringDict::new();
    let mut at = 0;
    let mut passed = 0;
    for &position in positions {
        while passed < position {
            plain_bytes(body, &mut at)?;
            passed += 1;
        }
        picked.push(plain_bytes(body, &mut at)?);
        passed += 1;
    }
    Ok(picked)
}

/// The entries of a PLAIN dictionary body of integers or doubles.
pub(crate) fn int_dictionary(
    physical: Physical,
    body: &[u8],
    count: usize,
) -> Result<Vec<i64>, Malformed> {
    if count > body.len() / 4 {
        return Err(Malformed("dictionary is cut"));
    }
    let mut values = vec![0; count];
    let physical = match physical {
        Physical::Double => Physical::Int64,
        other => other,
    };
    ints(physical, Encoding::Plain, body, &[], &mut values)?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_byte_strings_are_located_or_refused() {
        let body = [2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0, 1, 0, 0, 0, b'c'];
        let mut slices = Slices::default();
        slices.locate(Encoding::Plain, &body, 3).unwrap();
        let texts: Vec<&[u8]> = (0..3).map(|index| slices.get(&body, index)).collect();
        assert_eq!(texts, [b"ab".as_slice(), b"", b"c"]);
        assert!(slices.fixed(&body, 2).is_none());
        let dict = string_dictionary(&body, 3).unwrap();
        assert_eq!(dict.iter().collect::<Vec<_>>(), texts);
        let picked = pick_strings(&body, &[0, 2]).unwrap();
        assert_eq!(picked.iter().collect::<Vec<_>>(), [b"ab".as_slice(), b"c"]);
        assert!(pick_strings(&body, &[3]).is_err());
        for cut in 0..body.len() {
            assert!(slices.locate(Encoding::Plain, &body[..cut], 3).is_err());
            assert!(string_dictionary(&body[..cut], 3).is_err());
        }
        // A length that reaches beyond the body.
        assert!(string_dictionary(&[0xff, 0xff, 0xff, 0xff, 1], 1).is_err());
    }

    #[test]
    fn delta_lengths_are_located_or_refused() {
        // Lengths 3, 3, 3: block 128, 4 miniblocks, 3 values, first 3, smallest difference 0.
        let mut body = vec![0x80, 1, 4, 3, 6, 0, 0, 0, 0, 0];
        body.extend(b"abcdefghi");
        let mut slices = Slices::default();
        slices.locate(Encoding::DeltaLength, &body, 3).unwrap();
        assert_eq!(slices.get(&body, 1), b"def");
        assert_eq!(slices.fixed(&body, 3), Some(b"abcdefghi".as_slice()));
        assert_eq!(slices.fixed(&body, 2), None);
        body.truncate(body.len() - 1);
        assert!(slices.locate(Encoding::DeltaLength, &body, 3).is_err());
        // Lengths −3, …
        let negative = [0x80, 1, 4, 2, 5, 0, 0, 0, 0, 0, b'a'];
        assert!(slices.locate(Encoding::DeltaLength, &negative, 2).is_err());
    }

    #[test]
    fn booleans_plain_and_run_length() {
        let mut bits = Bits::default();
        booleans(Encoding::Plain, &[0b0000_0101, 0xff], 9, &mut bits).unwrap();
        assert_eq!((bits.len(), bits.count()), (9, 3));
        assert!(booleans(Encoding::Plain, &[1], 9, &mut bits).is_err());
        let mut bits = Bits::default();
        booleans(Encoding::Rle, &[2, 0, 0, 0, 9 << 1, 1], 9, &mut bits).unwrap();
        assert_eq!(bits.count(), 9);
        assert!(booleans(Encoding::Rle, &[2, 0], 9, &mut bits).is_err());
    }
}
