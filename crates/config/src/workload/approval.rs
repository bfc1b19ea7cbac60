//! Reading who must agree to a failover.

use std::time::Duration;

use dr_model::approval::{DEFAULT_EXPIRY, MAX_EXPIRY};
use dr_model::document::{Context, FromNode, Node, Problem, Reader, Spanned, list};
use dr_model::{ApprovalPolicy, Approver, ApproverKey, ApproverName};

/// Reads `approval`. A quorum that nobody can reach is refused: it would be found out in the night that matters.
pub(super) fn read(node: &Node, context: &mut Context) -> Option<ApprovalPolicy> {
    let mut reader = Reader::open(node, context)?;
    let quorum: Option<Spanned<u32>> = reader.required("quorum");
    let expires = reader.optional_with("expires", expiry);
    let before = reader.context().errors();
    let approvers = reader.optional_with("approvers", approvers);
    let readable = reader.context().errors() == before;
    reader.finish();
    let (quorum, approvers) = (quorum?, approvers.unwrap_or_default());
    let count = approvers.len();
    let missing = usize::try_from(quorum.value).unwrap_or(usize::MAX);
    let problem = if !readable {
        None
    } else if missing > count {
        let what = format!(
            "{} approvals are asked for, and {count} people may approve",
            quorum.value
        );
        let hint = "name them in `approvers`; `dr approval keygen` makes the key of one";
        Some(Problem::error(&quorum.span, what).hint(hint))
    } else if missing == count && count > 0 {
        let what = "none of those who may approve can start a failover themselves";
        let hint = "nobody approves what they asked for: name one person more";
        Some(Problem::warning(&quorum.span, what).hint(hint))
    } else {
        None
    };
    if let Some(problem) = problem {
        context.within("quorum", |context| context.report(problem));
    }
    Some(ApprovalPolicy {
        quorum: quorum.value,
        expires: expires.unwrap_or(DEFAULT_EXPIRY),
        approvers,
    })
}

fn expiry(node: &Node, context: &mut Context) -> Option<Duration> {
    let duration = Duration::from_node(node, context)?;
    if duration.is_zero() || duration > MAX_EXPIRY {
        let problem = Problem::error(&node.span, "an approval cannot count for so long")
            .expected("a duration above zero, at most `7d`");
        context.report(problem);
        return None;
    }
    Some(duration)
}

/// Reads the list; each person and each key stands in it once, or one person would be two.
fn approvers(node: &Node, context: &mut Context) -> Option<Vec<Approver>> {
    let read: Vec<Spanned<Approver>> = list(approver)(node, context)?;
    for (index, one) in read.iter().enumerate() {
        let mut before = read[..index].iter();
        let same = before.find(|other| is_same(&other.value, &one.value));
        if let Some(same) = same {
            let what = format!(
                "`{}` stands here already, with that name, key or account",
                same.value.name
            );
            let problem = Problem::error(&one.span, what)
                .hint("a person counts once, and signs with a key that nobody else has");
            context.within(&format!("[{index}]"), |context| context.report(problem));
        }
    }
    Some(read.into_iter().map(|one| one.value).collect())
}

/// Tells whether two people cannot be told apart.
fn is_same(one: &Approver, other: &Approver) -> bool {
    let account = one.account.is_some() && one.account == other.account;
    one.name == other.name || one.key == other.key || account
}

fn approver(node: &Node, context: &mut Context) -> Option<Spanned<Approver>> {
    let mut reader = Reader::open(node, context)?;
    let name: Option<ApproverName> = reader.required("name");
    let account: Option<String> = reader.optional("account");
    let key: Option<ApproverKey> = reader.required("key");
    reader.finish();
    let name = name?;
    let approver = Approver {
        name,
        account,
        key: key?,
    };
    Some(Spanned::new(node.span.clone(), approver))
}
