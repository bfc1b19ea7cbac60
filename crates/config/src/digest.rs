//! A hash of what a configuration says.

use dr_model::document::{Node, Value};

/// Hashes documents: each value with its type and length, maps by sorted key, without places.
pub(crate) fn digest<'a>(documents: impl Iterator<Item = &'a Node>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for document in documents {
        write(document, &mut hasher);
    }
    hasher.finalize()
}

fn write(node: &Node, hasher: &mut blake3::Hasher) {
    match &node.value {
        Value::Null => field(b'n', &[], hasher),
        Value::Bool(value) => field(b'b', &[u8::from(*value)], hasher),
        Value::Integer(value) => field(b'i', &value.to_le_bytes(), hasher),
        Value::Float(value) => field(b'f', &value.to_bits().to_le_bytes(), hasher),
        Value::String(value) => field(b's', value.as_bytes(), hasher),
        Value::List(nodes) => {
            field(b'l', &nodes.len().to_le_bytes(), hasher);
            nodes.iter().for_each(|node| write(node, hasher));
        }
        Value::Map(entries) => {
            field(b'm', &entries.len().to_le_bytes(), hasher);
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by_key(|(key, _)| &key.value);
            for (key, node) in sorted {
                field(b'k', key.value.as_bytes(), hasher);
                write(node, hasher);
            }
        }
    }
}

fn field(tag: u8, bytes: &[u8], hasher: &mut blake3::Hasher) {
    hasher.update(&[tag]);
    hasher.update(&bytes.len().to_le_bytes());
    hasher.update(bytes);
}
