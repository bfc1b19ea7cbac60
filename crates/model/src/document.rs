//! Documents that people write, as values that remember where they stand.
//!
//! A configuration is refused with every problem at once, each with its file, line, column, what was expected and a
//! hint. So the reading of a document never stops at the first problem: a [`Reader`] takes the keys of one map out of a
//! [`Node`] and reports into a [`Context`], and whoever owns a part of the document (a driver, a step, a kind of
//! traffic) reads its own subtree in the same way. How the text became nodes is no concern of this module.
//!
//! ```
//! use dr_model::document::{Context, FromNode, Node, Reader, choice};
//!
//! struct Instance { port: u16, warm: bool }
//!
//! impl FromNode for Instance {
//!     fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
//!         let mut reader = Reader::open(node, context)?;
//!         let port = reader.or("port", 5432);
//!         let warm = reader.optional_with("standby", choice(&[("warm", true), ("none", false)]));
//!         reader.finish();
//!         Some(Self { port, warm: warm.unwrap_or(false) })
//!     }
//! }
//! ```

mod address;
mod collections;
mod context;
mod node;
mod path;
mod problem;
mod quantity;
mod reader;
mod scalar;
mod suggest;
mod template;

pub use address::{Endpoint, endpoint, socket_address};
pub use collections::{list, map};
pub use context::{Context, Resolver};
pub use node::{Node, Span, Spanned, Value};
pub use path::cleaned;
pub use problem::{Problem, Severity};
pub use quantity::ByteSize;
pub use reader::{Reader, one_of};
pub use scalar::{FromNode, choice, parsed};
pub use suggest::closest;
pub use template::Template;

#[cfg(test)]
mod tests;
