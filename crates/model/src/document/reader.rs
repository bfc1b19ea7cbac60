//! Reading the keys of one map.

use super::{Context, FromNode, Node, Problem, Span, Spanned, Value};

/// Reads the keys of one map, remembering which were asked for.
///
/// Ask for every key first, call [`Reader::finish`], and only then use `?` on what was read: so all problems of the map
/// are found, and a key that nobody asked for is reported with the closest one that somebody did.
#[derive(Debug)]
#[must_use = "call `finish`, which reports the unknown keys"]
pub struct Reader<'n, 'c> {
    span: &'n Span,
    entries: &'n [(Spanned<String>, Node)],
    known: Vec<&'static str>,
    context: &'c mut Context,
}

impl<'n, 'c> Reader<'n, 'c> {
    /// Starts reading `node`; reports and returns `None` if it is not a map.
    pub fn open(node: &'n Node, context: &'c mut Context) -> Option<Self> {
        let entries = node.entries(context)?;
        Some(Self {
            span: &node.span,
            entries,
            known: Vec::new(),
            context,
        })
    }

    /// Reads a key that must be there. `None` means that a problem was reported.
    pub fn required<T: FromNode>(&mut self, key: &'static str) -> Option<T> {
        self.required_with(key, T::from_node)
    }

    /// Reads a key that must be there with a function such as [`choice`](super::choice).
    pub fn required_with<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node, &mut Context) -> Option<T>,
    ) -> Option<T> {
        match self.node(key) {
            Some(node) => self.context.within(key, |context| read(node, context)),
            None => {
                let problem = Problem::error(self.span, format!("`{key}` is missing"));
                self.context.report(problem);
                None
            }
        }
    }

    /// Reads a key that may be left out. `None` means that it was, or that a problem was reported.
    pub fn optional<T: FromNode>(&mut self, key: &'static str) -> Option<T> {
        self.optional_with(key, T::from_node)
    }

    /// Reads a key that may be left out with a function such as [`choice`](super::choice).
    pub fn optional_with<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node, &mut Context) -> Option<T>,
    ) -> Option<T> {
        let node = self.node(key)?;
        if node.value == Value::Null {
            return None;
        }
        self.context.within(key, |context| read(node, context))
    }

    /// Reads a key that may be left out and then is `default`.
    pub fn or<T: FromNode>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// Reads a key that may be left out and then is the type's default.
    pub fn or_default<T: FromNode + Default>(&mut self, key: &'static str) -> T {
        self.optional(key).unwrap_or_default()
    }

    /// Returns what stands under a key, unread: somebody else will read it.
    pub fn node(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        let found = |(k, _): &&(Spanned<String>, Node)| k.value == key;
        self.entries.iter().find(found).map(|(_, node)| node)
    }

    /// Returns where the map stands.
    #[must_use]
    pub fn span(&self) -> &'n Span {
        self.span
    }

    /// Returns the context, to report what only the owner of the map can see.
    pub fn context(&mut self) -> &mut Context {
        self.context
    }

    /// Ends the reading: reports each key that nobody asked for.
    pub fn finish(self) {
        for (key, _) in self.entries {
            if self.known.contains(&key.value.as_str()) {
                continue;
            }
            let mut known = self.known.clone();
            known.sort_unstable();
            known.dedup();
            let problem = Problem::error(&key.span, format!("unknown key `{}`", key.value))
                .expected(one_of(&known))
                .suggest(&key.value, &known);
            self.context.report(problem);
        }
    }
}

impl Node {
    /// Returns the entries of a map; reports if it is none, and each key that stands there twice.
    pub fn entries(&self, context: &mut Context) -> Option<&[(Spanned<String>, Node)]> {
        let Value::Map(entries) = &self.value else {
            context.wrong_type(self, "a map");
            return None;
        };
        for (index, (key, _)) in entries.iter().enumerate() {
            let same = |(k, _): &&(Spanned<String>, Node)| k.value == key.value;
            if let Some((first, _)) = entries[..index].iter().find(same) {
                let problem = Problem::error(&key.span, format!("duplicate key `{}`", key.value))
                    .hint(format!("it already stands in line {}", first.span.line));
                context.report(problem);
            }
        }
        Some(entries)
    }
}

/// Lists words for a message: "`a`, `b` or `c`".
#[must_use]
pub fn one_of<S: AsRef<str>>(words: &[S]) -> String {
    let quoted: Vec<_> = words.iter().map(|w| format!("`{}`", w.as_ref())).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}
