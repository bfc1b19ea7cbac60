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

/// Tells whether an actor of this machine has ended; `None` if it is another's, which cannot be seen from here.
pub(crate) fn has_ended(actor: &Actor) -> Option<bool> {
    let host = rustix::system::uname();
    if host.nodename().to_string_lossy() != actor.host {
        return None;
    }
    let process = i32::try_from(actor.process_id).ok();
    let process = process.and_then(rustix::process::Pid::from_raw)?;
    // Somebody else's process refuses the signal, and so it is there.
    let seen = rustix::process::test_kill_process(process);
    Some(seen == Err(rustix::io::Errno::SRCH))
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
    fn sees_its_own_process_and_none_of_another_machine() {
        let own = actor();
        assert_eq!(has_ended(&own), Some(false));
        let elsewhere = Actor::new("ada", "elsewhere.example", own.process_id);
        assert_eq!(has_ended(&elsewhere), None);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let child_process = child.id();
        child.wait().unwrap();
        assert_eq!(
            has_ended(&Actor::new(own.user, own.host, child_process)),
            Some(true)
        );
    }

    #[test]
    fn finds_an_account_by_its_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(account(passwd, 1000).as_deref(), Some("ada"));
        assert_eq!(account(passwd, 100), None);
    }
}
