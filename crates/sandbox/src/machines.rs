//! Regions on machines of their own, as far as networks and files go.
//!
//! Each region gets a network and a mount namespace: it sees its own directory and not the others', and reaches the others
//! over a wire to this program's network, which stands between all of them and can cut any two apart without a word to
//! either. Clients and the DNS server are in the middle. It takes root, and a network namespace that is this program's
//! own: `unshare --net PROGRAM`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use dr_model::RegionName;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::layout::Place;
use crate::process::Launcher;
use crate::{Error, Result, wait};

/// The network of all machines.
const NETWORK: [u8; 2] = [10, 99];

/// A machine, by the process that keeps its namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Machine {
    keeper: i32,
}

impl Machine {
    /// Returns the option of `nsenter` that names it.
    pub(crate) fn target(self) -> String {
        format!("--target={}", self.keeper)
    }
}

/// Returns the address in the middle, where clients and the DNS server are.
#[must_use]
pub fn middle() -> IpAddr {
    address(0, 1)
}

/// Returns the address of the machine of the region with this number, which counts from 0.
pub(crate) fn address_of(region: u8) -> IpAddr {
    address(region + 1, 2)
}

fn address(network: u8, host: u8) -> IpAddr {
    let [first, second] = NETWORK;
    Ipv4Addr::new(first, second, network, host).into()
}

/// Makes a machine for each region, whose directories have to exist.
pub(crate) async fn make(
    launcher: &Launcher,
    regions: &mut BTreeMap<RegionName, Place>,
    logs: &Path,
) -> Result<()> {
    ip(launcher, "link set lo up").await?;
    ip(launcher, &format!("address add {}/32 dev lo", middle())).await?;
    let forward = Path::new("/proc/sys/net/ipv4/ip_forward");
    std::fs::write(forward, "1").map_err(Error::file("write", forward))?;
    let directories: Vec<_> = regions.values().map(|p| p.directory.clone()).collect();
    for (number, (region, place)) in (0_u8..).zip(regions) {
        let others = directories.iter().filter(|at| **at != place.directory);
        let log = logs.join(format!("machine-{region}.log"));
        let hide = "for d; do mount -t tmpfs -o size=64k,mode=755 tmpfs \"$d\" || exit; done; echo ready; exec sleep infinity";
        let mut command = launcher.privileged(Path::new("unshare"), logs);
        command
            .args(["--net", "--mount", "sh", "-c", hide, "sh"])
            .args(others);
        let keeper = launcher.start(command, &log)?;
        let what = format!("a machine for `{region}`");
        wait::until(&what, Duration::from_secs(10), async || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.contains("ready") {
                Ok(())
            } else {
                Err(format!("it says: {said}"))
            }
        })
        .await?;
        let machine = Machine { keeper };
        let (wire, router) = (format!("to{number}"), address(number + 1, 1));
        ip(
            launcher,
            &format!("link add {wire} type veth peer name wire netns {keeper}"),
        )
        .await?;
        ip(launcher, &format!("address add {router}/24 dev {wire}")).await?;
        ip(launcher, &format!("link set {wire} up")).await?;
        for words in [
            "link set lo up".to_owned(),
            format!("address add {}/24 dev wire", address_of(number)),
            "link set wire up".to_owned(),
            format!("route add default via {router}"),
        ] {
            ip(&launcher.on(Some(machine)), &words).await?;
        }
        place.machine = Some(machine);
    }
    Ok(())
}

/// Lets nothing pass between two machines any more: packets are lost, and nobody is told.
pub async fn cut(launcher: &Launcher, one: IpAddr, other: IpAddr) -> Result<()> {
    for (from, to) in [(one, other), (other, one)] {
        ip(launcher, &format!("rule add from {from} to {to} blackhole")).await?;
    }
    Ok(())
}

/// Lets everything pass again between two machines that were cut apart.
pub async fn mend(launcher: &Launcher, one: IpAddr, other: IpAddr) -> Result<()> {
    for (from, to) in [(one, other), (other, one)] {
        ip(launcher, &format!("rule del from {from} to {to} blackhole")).await?;
    }
    Ok(())
}

/// Listens on a port of the machine on which `place` is, in the place of a server that is gone.
pub fn listen(place: &Place, port: u16) -> Result<TcpListener> {
    let address = SocketAddr::new(place.address, port);
    let failed = |source| Error::Listen {
        address: address.to_string(),
        source,
    };
    let machine = place.machine;
    // A thread changes its namespace for the rest of its life; what it has opened stays where it was opened.
    let opened = std::thread::spawn(move || {
        if let Some(machine) = machine {
            let network = std::fs::File::open(format!("/proc/{}/ns/net", machine.keeper))?;
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(network.as_fd(), kind)?;
        }
        TcpListener::bind(address)
    });
    match opened.join() {
        Ok(listener) => listener.map_err(failed),
        Err(_) => Err(failed(std::io::Error::other("the thread panicked"))),
    }
}

async fn ip(launcher: &Launcher, words: &str) -> Result<()> {
    let mut command = launcher.root(Path::new("ip"), Path::new("/"));
    command.args(words.split(' '));
    launcher.run(command).await.map(drop)
}
