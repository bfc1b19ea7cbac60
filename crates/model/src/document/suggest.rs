//! Finding what somebody meant.

/// Returns the candidate closest to `word`, if one is close enough to be meant.
///
/// One edit is allowed in short words and one more for each three letters; swapping two neighbours is one edit.
pub fn closest<S: AsRef<str>>(
    word: &str,
    candidates: impl IntoIterator<Item = S>,
) -> Option<String> {
    let allowed = 1 + word.chars().count() / 3;
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(word, c.as_ref()), c))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c.as_ref().to_owned())
}
