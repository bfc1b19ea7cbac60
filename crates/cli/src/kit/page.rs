//! The page of a kit for a person, to be printed and kept where the power is.

use dr_config::Notify;
use dr_coordination::kit::Content;

use crate::wiring::Setup;

/// Writes the page.
pub(super) fn write(setup: &Setup, content: &Content) -> String {
    let mut lines = vec![
        format!(
            "RECOVERY KIT{}",
            content
                .organization
                .as_ref()
                .map_or_else(String::new, |name| format!(" of {name}"))
        ),
        String::new(),
        "To move a workload with nothing but the program and this page:".to_owned(),
        String::new(),
        format!(
            "1. Get dr {}, whose BLAKE3 hash is {} ({} bytes).",
            content.program.version, content.program.blake3, content.program.size_bytes
        ),
        "2. Choose the store of a region that is there:".to_owned(),
    ];
    for (region, location) in &content.stores {
        lines.push(format!("     {region}: {location}"));
    }
    lines.push("3. Run, on a machine that reaches it and the region's hosts:".to_owned());
    for (name, workload) in &setup.config.workloads {
        for region in std::iter::once(&workload.home).chain(&workload.recovery) {
            let store = content.stores.get(region).map_or("", String::as_str);
            lines.push(format!(
                "     dr failover --to {region} --from-store {store} {name}"
            ));
        }
    }
    lines.push("   It unpacks the configuration into ./dr-kit, shows a plan, and asks.".to_owned());
    lines.push(format!(
        "4. The secrets are not in the kit. Put files into ./dr-kit/{}/ under their own names,",
        super::SECRETS
    ));
    lines.push("   and set variables:".to_owned());
    for note in &content.secrets {
        lines.push(format!(
            "     {} ({})",
            note.reference,
            note.used_at.join(", ")
        ));
    }
    lines
        .push("   What only a webhook refers to, a failover does without, and says so.".to_owned());
    for runbook in setup.config.runbooks.unusable() {
        let (file, held) = (&runbook.file, content.files.contains_key(&runbook.file));
        let left_out = if held { "" } else { ", and is not in the kit" };
        lines.push(format!(
            "   The file {file} could not be used when the kit was written{left_out}."
        ));
    }
    lines.push(String::new());
    lines.push("What there is:".to_owned());
    for (name, workload) in &setup.config.workloads {
        lines.push(format!(
            "- {name}: home {}, recovery {}; owner {}",
            workload.home,
            workload
                .recovery
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            workload.owner.as_deref().unwrap_or("unknown")
        ));
        for (resource, entry) in &workload.resources {
            lines.push(format!("    {resource}: {}", entry.kind));
        }
        for traffic in &workload.traffic {
            let text = |key: &str| {
                let node = traffic.node.get(key);
                node.and_then(|node| node.as_text())
                    .unwrap_or("-")
                    .to_owned()
            };
            lines.push(format!(
                "    traffic {}: {} at {}",
                traffic.kind,
                text("name"),
                text("server")
            ));
        }
        let told = workload.notify.len();
        let Some(Notify::Webhook { .. }) = workload.notify.first() else {
            continue;
        };
        lines.push(format!("    told by webhook: {told}"));
    }
    lines.push(String::new());
    lines.join("\n")
}
