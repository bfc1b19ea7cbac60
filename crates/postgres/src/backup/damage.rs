//! Which pages a server found damaged while it sent its files.
//!
//! It says so in warnings, one a page for the first of each file, and then how many there were in the file. The words may
//! be in any language; what they quote, the file, and the numbers after it are not.

use std::collections::BTreeMap;

use dr_pgwire::ServerMessage;

use super::base::DamagedPage;

/// Reads the warnings: the pages that they name, and the number of those that they only count.
pub(super) fn read(notices: &[ServerMessage]) -> (Vec<DamagedPage>, u64) {
    // Language does not matter: the severity that stands here is never translated.
    let warnings = notices.iter().filter(|notice| notice.severity == "WARNING");
    read_texts(warnings.map(|notice| notice.message.as_str()))
}

fn read_texts<'a>(warnings: impl Iterator<Item = &'a str>) -> (Vec<DamagedPage>, u64) {
    let mut pages = Vec::new();
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    for text in warnings {
        let Some((file, numbers)) = quoted(text) else {
            continue;
        };
        match numbers.as_slice() {
            // Block, the checksum computed and the one found, of which the last two are hexadecimal.
            [block, _, _, ..] => pages.push(DamagedPage {
                file: file.clone(),
                block: *block,
                lsn: None,
            }),
            [total] => {
                totals.insert(file.clone(), u64::from(*total));
            }
            _ => {}
        }
        totals.entry(file).or_default();
    }
    let mut more = 0;
    for (file, total) in totals {
        let named = pages.iter().filter(|page| page.file == file).count() as u64;
        more += total.saturating_sub(named);
    }
    // The server says that there is damage; that no warning could be read does not make it whole.
    if pages.is_empty() && more == 0 {
        more = 1;
    }
    (pages, more)
}

/// Returns the file that a message quotes and the numbers that follow; those that are not decimal count as zero.
fn quoted(text: &str) -> Option<(String, Vec<u32>)> {
    let quotes = ['"', '«', '»', '“', '”', '„'];
    let begin = text.find(quotes)?;
    let rest = text[begin..]
        .trim_start_matches(quotes)
        .trim_start_matches(['\u{a0}', ' ']);
    let end = rest.find(quotes)?;
    let file = rest[..end]
        .trim_end_matches(['\u{a0}', ' '])
        .trim_start_matches("./")
        .to_owned();
    let words = rest[end..].split(|c: char| !c.is_ascii_alphanumeric());
    let number = |word: &str| {
        let hexadecimal = word.bytes().all(|byte| byte.is_ascii_hexdigit())
            && word.bytes().any(|b| b.is_ascii_digit());
        hexadecimal.then(|| word.parse().unwrap_or(0))
    };
    let numbers = words.filter(|word| !word.is_empty()).filter_map(number);
    Some((file, numbers.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(file: &str, block: u32) -> DamagedPage {
        DamagedPage {
            file: file.to_owned(),
            block,
            lsn: None,
        }
    }

    #[test]
    fn warnings_are_read_in_any_language() {
        let texts = [
            "checksum verification failed in file \"./base/5/16384\", block 7: calculated 6DB2 but expected 1234",
            "Prüfsummenüberprüfung fehlgeschlagen in Datei »base/5/16385«, Block 12: berechnet 99 aber erwartet AB12",
            "further checksum verification failures in file \"./base/5/16384\" will not be reported",
            "file \"./base/5/16384\" has a total of 9 checksum verification failures",
            "10 total checksum verification failures",
        ];
        let expected = vec![page("base/5/16384", 7), page("base/5/16385", 12)];
        assert_eq!(read_texts(texts.into_iter()), (expected, 8));
    }

    #[test]
    fn damage_without_a_readable_warning_is_damage() {
        assert_eq!(read_texts(["?"].into_iter()), (Vec::new(), 1));
        assert_eq!(read_texts(std::iter::empty()), (Vec::new(), 1));
    }
}
