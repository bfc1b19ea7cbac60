//! What a person states: about the old primary, and about the clients.

use dr_runbook::Statement;

/// `--witness`, `--override` and `--clients-by-hand`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Stated {
    /// State that you know that the old primary has stopped: who saw what. Recorded word for word
    #[arg(long, value_name = "NAME: WHAT WAS SEEN", value_parser = statement)]
    witness: Option<String>,

    /// Set the safety rules aside, and say why. Recorded, and reported as unproven for ever
    #[arg(long = "override", value_name = "REASON", value_parser = reason)]
    override_reason: Option<String>,

    #[command(flatten)]
    by_hand: ByHand,
}

/// `--clients-by-hand`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ByHand {
    /// Go on although a name server would refuse the switch, and say how clients are led instead. Recorded; sets no other rule
    /// aside
    #[arg(long, value_name = "REASON", value_parser = reason)]
    clients_by_hand: Option<String>,
}

impl From<ByHand> for Stated {
    fn from(by_hand: ByHand) -> Self {
        Self {
            by_hand,
            ..Self::default()
        }
    }
}

impl Stated {
    /// Returns what was stated, as an execution records it.
    pub(crate) fn statements(&self) -> Vec<Statement> {
        let witness = self.witness.iter().cloned().map(Statement::Witness);
        let set_aside = self.override_reason.iter().cloned();
        let by_hand = self.by_hand.clients_by_hand.iter().cloned();
        witness
            .chain(set_aside.map(Statement::Override))
            .chain(by_hand.map(Statement::ClientsByHand))
            .collect()
    }
}

fn statement(text: &str) -> std::result::Result<String, String> {
    let named = text
        .split_once(':')
        .is_some_and(|(who, what)| !who.trim().is_empty() && !what.trim().is_empty());
    if named {
        Ok(text.to_owned())
    } else {
        Err("expected who saw what, as in `Ada: the rack is without power`".to_owned())
    }
}

/// Reads a reason, which is not empty.
pub(crate) fn reason(text: &str) -> std::result::Result<String, String> {
    if text.trim().is_empty() {
        Err("expected a reason".to_owned())
    } else {
        Ok(text.to_owned())
    }
}
