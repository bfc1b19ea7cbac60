//! How a store on S3 stands in the configuration.

use std::path::PathBuf;

use dr_model::document::{Context, FromNode, Node, Problem, Reader, Template, Value, choice};

/// Where a store on S3 is and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with: empty, or parts each followed by a `/`.
    pub prefix: String,
    /// The server, as `http://` or `https://`; AWS unless it is set.
    pub endpoint: Option<String>,
    /// The region; what the environment says unless it is set.
    pub region: Option<String>,
    /// Whether the bucket stands in the path instead of the host name.
    pub path_style: bool,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The storage class of new objects.
    pub storage_class: Option<StorageClass>,
    /// How the server encrypts new objects; as the bucket says unless it is set.
    pub encryption: Option<Encryption>,
    /// The keys for reading and writing; those of the environment unless they are set.
    pub credentials: Option<Keys>,
    /// The keys for deleting. Nothing is ever deleted without them.
    pub prune_credentials: Option<Keys>,
}

/// A pair of keys, resolved when it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The id of the pair.
    pub access_key_id: Template,
    /// The secret.
    pub secret_access_key: Template,
    /// The token of temporary keys.
    pub session_token: Option<Template>,
}

/// How the server encrypts what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// `aes256`: by keys of S3's own.
    Aes256,
    /// `aws:kms`, by a key of this id or by the account's default.
    Kms(Option<String>),
}

/// Storage classes whose objects can be read at once; the archives, which cannot, hold no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageClass {
    /// `STANDARD`.
    Standard,
    /// `STANDARD_IA`.
    StandardIa,
    /// `ONEZONE_IA`.
    OnezoneIa,
    /// `INTELLIGENT_TIERING`.
    IntelligentTiering,
    /// `GLACIER_IR`.
    GlacierIr,
}

const CLASSES: [(&str, StorageClass); 5] = [
    ("STANDARD", StorageClass::Standard),
    ("STANDARD_IA", StorageClass::StandardIa),
    ("ONEZONE_IA", StorageClass::OnezoneIa),
    ("INTELLIGENT_TIERING", StorageClass::IntelligentTiering),
    ("GLACIER_IR", StorageClass::GlacierIr),
];

impl StorageClass {
    /// Returns its name in the protocol.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let found = CLASSES.iter().find(|(_, class)| *class == self);
        found.map_or("STANDARD", |(name, _)| name)
    }
}

impl S3Options {
    /// Returns the options of a location alone.
    fn at((bucket, prefix): (String, String)) -> Self {
        Self {
            bucket,
            prefix,
            endpoint: None,
            region: None,
            path_style: false,
            ca_file: None,
            storage_class: None,
            encryption: None,
            credentials: None,
            prune_credentials: None,
        }
    }
}

/// Reads `s3://bucket/prefix`, or a map with that as `url` and everything else beside it.
impl FromNode for S3Options {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        if let Value::String(_) = node.value {
            return url(node, context).map(Self::at);
        }
        let before = context.errors();
        let mut reader = Reader::open(node, context)?;
        let location = reader.required_with("url", url);
        let endpoint = reader.optional_with("endpoint", endpoint);
        let region = reader.optional_with("region", word("a region, such as `us-east-1`"));
        let path_style = reader.optional::<bool>("path_style");
        let ca_file = reader.optional::<PathBuf>("ca_file");
        let storage_class = reader.optional_with("storage_class", choice(&CLASSES));
        let encryption = reader.optional::<Encryption>("encryption");
        let credentials = reader.optional::<Keys>("credentials");
        let prune_credentials = reader.optional::<Keys>("prune_credentials");
        let with_ca = reader.node("ca_file");
        if let (Some(node), Some(endpoint)) = (with_ca, &endpoint)
            && endpoint.starts_with("http://")
        {
            let problem = Problem::error(&node.span, "certificates are of no use without TLS")
                .hint("write `endpoint` with `https://`, or leave `ca_file` out");
            reader.context().report(problem);
        }
        reader.finish();
        let location = location?;
        if context.errors() > before {
            return None;
        }
        // A server of one's own seldom has a host name for each bucket.
        let path_style = path_style.unwrap_or(endpoint.is_some());
        Some(Self {
            endpoint,
            region,
            path_style,
            ca_file,
            storage_class,
            encryption,
            credentials,
            prune_credentials,
            ..Self::at(location)
        })
    }
}

impl FromNode for Keys {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let access_key_id = reader.required("access_key_id");
        let secret_access_key = reader.required("secret_access_key");
        let session_token = reader.optional("session_token");
        reader.finish();
        Some(Self {
            access_key_id: access_key_id?,
            secret_access_key: secret_access_key?,
            session_token,
        })
    }
}

/// Reads `aes256` or `aws:kms`, or a map with the id of a key.
impl FromNode for Encryption {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        if let Value::Map(_) = node.value {
            let mut reader = Reader::open(node, context)?;
            let key = reader.required_with("kms_key_id", word("the id or the ARN of a key"));
            reader.finish();
            return key.map(|key| Self::Kms(Some(key)));
        }
        choice(&[("aes256", Self::Aes256), ("aws:kms", Self::Kms(None))])(node, context)
    }
}

/// Makes a function that reads text that is not empty and holds nothing but what can be seen.
fn word(expected: &'static str) -> impl Fn(&Node, &mut Context) -> Option<String> {
    move |node, context| {
        let text = String::from_node(node, context)?;
        if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic()) {
            return Some(text);
        }
        context.report(Problem::error(&node.span, "found something else").expected(expected));
        None
    }
}

fn endpoint(node: &Node, context: &mut Context) -> Option<String> {
    const EXPECTED: &str = "`http://` or `https://`, a host, and a port if it is not the usual one";
    let text = String::from_node(node, context)?;
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .map(|rest| rest.trim_end_matches('/'));
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    match host {
        Some(host) if !host.is_empty() && host.chars().all(allowed) => {
            Some(text.trim_end_matches('/').to_owned())
        }
        _ => {
            let written = node.as_text().unwrap_or_default();
            let problem = Problem::error(&node.span, format!("`{written}` is not a server"))
                .expected(EXPECTED);
            context.report(problem);
            None
        }
    }
}

/// Reads `s3://bucket/prefix` as bucket and prefix.
fn url(node: &Node, context: &mut Context) -> Option<(String, String)> {
    let text = String::from_node(node, context)?;
    let written = node.as_text().unwrap_or_default();
    let mut wrong = |what: &str, expected: &str| {
        let problem = Problem::error(&node.span, format!("`{written}`: {what}")).expected(expected);
        context.report(problem);
        None
    };
    let Some(rest) = text.strip_prefix("s3://") else {
        return wrong("not a location on S3", "such as `s3://acme-dr-use1/prefix`");
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if !bucket_name(bucket) {
        return wrong(
            "not the name of a bucket",
            "3 to 63 lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit",
        );
    }
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() {
        return Some((bucket.to_owned(), String::new()));
    }
    match dr_provider::Key::new(prefix) {
        Ok(prefix) => Some((bucket.to_owned(), format!("{prefix}/"))),
        Err(_) => wrong(
            "not a prefix",
            "parts of letters, digits, `.`, `_` and `-`, joined by `/`",
        ),
    }
}

fn bucket_name(name: &str) -> bool {
    let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.starts_with(end)
        && name.ends_with(end)
        && name.chars().all(|c| end(c) || c == '-' || c == '.')
}
