//! Small things about text.

/// Most edits between a word and one that was meant.
const MAX_EDITS: usize = 3;

/// The known name nearest to what was written, if one is near.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (edits(&written.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(edits, name)| *edits <= MAX_EDITS.min(name.len() / 2))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, y) in b.iter().enumerate() {
            let left = row.get(j).copied().unwrap_or(0);
            let Some(cell) = row.get_mut(j + 1) else {
                break;
            };
            let substituted = diagonal + usize::from(x != *y);
            diagonal = *cell;
            *cell = substituted.min(diagonal + 1).min(left + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Cuts at a character so that at most `max_bytes` are left.
pub(crate) fn cut(text: &str, max_bytes: usize) -> &str {
    if text.len() <= max_bytes {
        return text;
    }
    let mut end = max_bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found() {
        assert_eq!(
            nearest("retension", ["prefix", "retention"]),
            Some("retention")
        );
        assert_eq!(nearest("xyz", ["prefix", "retention"]), None);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(cut("aäb", 2), "a");
    }
}
