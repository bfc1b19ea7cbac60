//! Records: small objects of JSON text that end with a line holding the hash of everything before it.
//!
//! Such a record decides where a chain begins, who is primary, what is deleted. JSON alone does not notice a bit that
//! flips inside of a number. Records that were written before there was such a line have none, and are read as they are;
//! whoever does not know the line finds text behind the value, and refuses the record.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How the line of a record begins.
const LINE: &str = "blake3 ";

/// Returns the bytes of a record that holds `value`.
///
/// # Panics
///
/// If the value has no JSON form: a map whose keys are no text, or a type that refuses.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut text = serde_json::to_vec_pretty(value).expect("plain values always have a JSON form");
    text.push(b'\n');
    with_hash(text, LINE)
}

/// Reads the value of a record; the error says what is wrong.
///
/// # Errors
///
/// If the hash does not match, or what is before it is no such value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(verified(bytes)?).map_err(|error| error.to_string())
}

/// Returns the JSON text of a record.
///
/// # Errors
///
/// If it has a hash, and that does not match.
pub fn verified(bytes: &[u8]) -> Result<&[u8], String> {
    without_hash(bytes, LINE)
}

/// Adds a line that begins with `mark` to a text that ends with a line.
#[must_use]
pub fn with_hash(mut text: Vec<u8>, mark: &str) -> Bytes {
    let line = hash_line(&text, mark);
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
    text.into()
}

/// Returns the text before such a line; all of it if there is none.
///
/// # Errors
///
/// If the hash does not match.
pub fn without_hash<'a>(bytes: &'a [u8], mark: &str) -> Result<&'a [u8], String> {
    let whole = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let begin = whole
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let (text, line) = bytes.split_at(begin);
    if !line.starts_with(mark.as_bytes()) {
        return Ok(bytes);
    }
    if line.strip_suffix(b"\n") == Some(hash_line(text, mark).as_bytes()) {
        Ok(text)
    } else {
        Err("its hash does not match".to_owned())
    }
}

fn hash_line(text: &[u8], mark: &str) -> String {
    format!("{mark}{}", blake3::hash(text).to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_that_flips_anywhere_is_noticed() {
        let value = (7_u64, "a text".to_owned(), [1.5, -2.0]);
        let whole = encode(&value);
        assert_eq!(decode(&whole), Ok(value));
        for at in 0..whole.len() * 8 {
            let mut flipped = whole.to_vec();
            flipped[at / 8] ^= 1 << (at % 8);
            decode::<serde_json::Value>(&flipped).unwrap_err();
        }
        // Without any of the line it is a record from before there was one, and says what it said.
        let text = verified(&whole).unwrap().len();
        for length in 0..whole.len() {
            let cut = decode::<serde_json::Value>(&whole[..length]);
            assert_eq!(
                cut.is_ok(),
                length == text || length == text - 1,
                "{length}"
            );
        }
    }

    #[test]
    fn a_record_without_a_hash_is_read() {
        for text in ["{\"a\": 1}", "{\"a\": 1}\n", "{\n  \"a\": 1\n}\n"] {
            let read: serde_json::Value = decode(text.as_bytes()).unwrap();
            assert_eq!(read["a"], 1);
        }
        decode::<serde_json::Value>(b"{\"a\": 1}\nsha256 00\n").unwrap_err();
        decode::<serde_json::Value>(b"").unwrap_err();
    }
}
