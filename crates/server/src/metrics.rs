//! The text that `/metrics` answers with: OpenMetrics 1.0.

use std::fmt::Write;

/// The kind of a metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A value that only grows; its samples are written with the suffix `_total`.
    Counter,
}

/// One value with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The value. A value that is not known has no sample: absence is visible to an alarm, a zero is not.
    pub value: f64,
}

/// A metric family.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its name, which ends with its unit: `dr_exposure_seconds`.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The unit, if the name ends with one.
    pub unit: Option<&'static str>,
    /// One sentence of help.
    pub help: &'static str,
    /// Its samples.
    pub samples: Vec<Sample>,
}

/// Writes families as OpenMetrics text, ending with `# EOF`.
#[must_use]
pub fn render(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families {
        let (kind, suffix) = match family.kind {
            Kind::Gauge => ("gauge", ""),
            Kind::Counter => ("counter", "_total"),
        };
        line(&mut text, format_args!("# TYPE {} {kind}", family.name));
        if let Some(unit) = family.unit {
            line(&mut text, format_args!("# UNIT {} {unit}", family.name));
        }
        line(
            &mut text,
            format_args!("# HELP {} {}", family.name, escape(family.help)),
        );
        for sample in &family.samples {
            let labels: Vec<String> = sample
                .labels
                .iter()
                .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
                .collect();
            let labels = if labels.is_empty() {
                String::new()
            } else {
                format!("{{{}}}", labels.join(","))
            };
            line(
                &mut text,
                format_args!("{}{suffix}{labels} {}", family.name, sample.value),
            );
        }
    }
    text.push_str("# EOF\n");
    text
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("writing to a string cannot fail");
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_openmetrics() {
        let families = [
            Family {
                name: "dr_exposure_seconds",
                kind: Kind::Gauge,
                unit: Some("seconds"),
                help: "Data loss if the primary were lost now.",
                samples: vec![Sample {
                    labels: vec![("resource", "a\"b\\c\nd".to_owned())],
                    value: 0.25,
                }],
            },
            Family {
                name: "dr_log_chunks",
                kind: Kind::Counter,
                unit: None,
                help: "Chunks written.",
                samples: vec![Sample {
                    labels: Vec::new(),
                    value: 3.0,
                }],
            },
        ];
        let expected = concat!(
            "# TYPE dr_exposure_seconds gauge\n",
            "# UNIT dr_exposure_seconds seconds\n",
            "# HELP dr_exposure_seconds Data loss if the primary were lost now.\n",
            "dr_exposure_seconds{resource=\"a\\\"b\\\\c\\nd\"} 0.25\n",
            "# TYPE dr_log_chunks counter\n",
            "# HELP dr_log_chunks Chunks written.\n",
            "dr_log_chunks_total 3\n",
            "# EOF\n",
        );
        assert_eq!(render(&families), expected);
    }
}
