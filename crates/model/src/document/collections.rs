//! Reading lists and maps with free keys.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::{Context, FromNode, Node, Problem, Value};

/// Every element is read, so that the problems of all are found.
impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let Value::List(nodes) = &node.value else {
            context.wrong_type(node, "a list");
            return None;
        };
        let read = |(index, node)| {
            context.within(&format!("[{index}]"), |context| T::from_node(node, context))
        };
        let values: Vec<_> = nodes.iter().enumerate().map(read).collect();
        values.into_iter().collect()
    }
}

/// Every entry is read, so that the problems of all are found; entries with a problem are left out.
impl<K, T> FromNode for BTreeMap<K, T>
where
    K: FromStr + Ord,
    K::Err: Display,
    T: FromNode,
{
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut map = Self::new();
        for (key, node) in node.entries(context)? {
            let value = context.within(&key.value, |context| T::from_node(node, context));
            match key.value.parse() {
                Ok(key) => {
                    if let Some(value) = value {
                        map.entry(key).or_insert(value);
                    }
                }
                Err(error) => {
                    let error: K::Err = error;
                    context.report(Problem::error(&key.span, error.to_string()));
                }
            }
        }
        Some(map)
    }
}
