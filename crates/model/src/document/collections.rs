//! Reading lists and maps with free keys.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::{Context, FromNode, Node, Problem, Value};

impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        list(T::from_node)(node, context)
    }
}

impl<K, T> FromNode for BTreeMap<K, T>
where
    K: FromStr + Ord,
    K::Err: Display,
    T: FromNode,
{
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        map(T::from_node)(node, context)
    }
}

/// Makes a function that reads a list. Every element is read, so that the problems of all are found; those with a
/// problem are left out.
pub fn list<T>(
    mut read: impl FnMut(&Node, &mut Context) -> Option<T>,
) -> impl FnMut(&Node, &mut Context) -> Option<Vec<T>> {
    move |node, context| {
        let Value::List(nodes) = &node.value else {
            context.wrong_type(node, "a list");
            return None;
        };
        let mut values = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            values.extend(context.within(&format!("[{index}]"), |context| read(node, context)));
        }
        Some(values)
    }
}

/// Makes a function that reads a map. Every entry is read, so that the problems of all are found; those with a problem
/// are left out.
pub fn map<K, T>(
    mut read: impl FnMut(&Node, &mut Context) -> Option<T>,
) -> impl FnMut(&Node, &mut Context) -> Option<BTreeMap<K, T>>
where
    K: FromStr + Ord,
    K::Err: Display,
{
    move |node, context| {
        let mut map = BTreeMap::new();
        for (key, node) in node.entries(context)? {
            let value = context.within(&key.value, |context| read(node, context));
            match (key.value.parse(), value) {
                (Ok(key), Some(value)) => {
                    map.entry(key).or_insert(value);
                }
                (Ok(_), None) => {}
                (Err(error), _) => {
                    let error: K::Err = error;
                    context.report(Problem::error(&key.span, error.to_string()));
                }
            }
        }
        Some(map)
    }
}
