//! What a test does on a machine that it cannot run on.

/// The variable that says what has to be there: `programs`, or `all`, which is rights as well. `scripts/test` sets it.
const REQUIRE: &str = "DR_TEST_REQUIRE";

/// What a test needs, and this machine does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A program that `scripts/packages test` brings.
    Program,
    /// A right, as to make namespaces or to mount: most of the time that of root.
    Right,
}

/// Says that something is not tested here, and why.
///
/// # Panics
///
/// If what is missing has to be there: then a test that could not be run has failed.
pub fn skipped(missing: Missing, why: &str) {
    let required = std::env::var(REQUIRE).unwrap_or_default();
    let fails = match missing {
        Missing::Program => matches!(required.as_str(), "programs" | "all"),
        Missing::Right => required == "all",
    };
    assert!(!fails, "not tested, and {REQUIRE} is `{required}`: {why}");
    say(why);
}

#[expect(
    clippy::print_stderr,
    reason = "what was not tested must not pass in silence"
)]
fn say(why: &str) {
    eprintln!("SKIPPED: {why}");
}
