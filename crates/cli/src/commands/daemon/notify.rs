//! Telling systemd (`sd_notify(3)`) which process is the daemon, since after a take-over it is another one than was started; and
//! that a guard is ready and at work.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that this process is the main one; `socket` is what systemd put into `NOTIFY_SOCKET`.
pub(super) fn main_process(socket: &OsStr) -> io::Result<()> {
    send(socket, &format!("MAINPID={}\n", std::process::id()))
}

/// Says something to systemd, if it started this process and wants to hear.
pub(crate) fn tell(message: &str) {
    let socket = std::env::var_os("NOTIFY_SOCKET");
    if let Some(Err(error)) = socket.map(|socket| send(&socket, message)) {
        tracing::debug!(%error, message, "systemd is not told");
    }
}

fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(message.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(to: &UnixDatagram) -> String {
        let mut text = [0; 64];
        let length = to.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    #[test]
    fn whoever_listens_is_told_the_number() {
        let expected = format!("MAINPID={}\n", std::process::id());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        main_process(path.as_os_str()).unwrap();
        assert_eq!(said(&socket), expected);
        let name = format!("dr-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        main_process(OsStr::new(&format!("@{name}"))).unwrap();
        assert_eq!(said(&socket), expected);
        assert!(main_process(OsStr::new("@nobody-listens-here")).is_err());
    }
}
