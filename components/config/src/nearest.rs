//! "Did you mean …": the known word that is nearest to an unknown one.

/// Longer words are not compared.
const MAX_WORD_LEN: usize = 100;

/// The candidate that is most like the word, if any is like enough.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Inserted, removed, changed and swapped characters between two words.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(MAX_WORD_LEN).collect();
    let b: Vec<char> = b.chars().take(MAX_WORD_LEN).collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let change = last[j] + usize::from(x != y);
            let mut best = change.min(last[j + 1] + 1).min(row[j] + 1);
            let swapped = i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y && x != y;
            if swapped {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typing_errors() {
        let keys = ["http_listen_port", "http_listen_address", "log_level"];
        assert_eq!(nearest("http_listen_prot", keys), Some("http_listen_port"));
        assert_eq!(nearest("http_port", keys), None);
        assert_eq!(nearest("loglevel", keys), Some("log_level"));
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(distance("abcd", "abdc"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
