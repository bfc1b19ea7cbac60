//! Who acts: written into every epoch and journal, so that the loser of a race can be told who won
//! it.

use dr_coordination::Actor;

/// Returns the account, the machine and the process.
pub(super) fn actor() -> Actor {
    let uid = rustix::process::getuid().as_raw();
    let names = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = account(&names, uid).unwrap_or_else(|| format!("uid {uid}"));
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    Actor::new(user, host, std::process::id())
}

/// Finds the name of an account in `passwd(5)`. The environment is not asked: it says what it
/// likes.
fn account(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_an_account_by_its_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(account(passwd, 1000).as_deref(), Some("ada"));
        assert_eq!(account(passwd, 100), None);
    }
}
