//! What everybody who answers clients says.

use std::net::{IpAddr, SocketAddr};

use dr_provider::Result;
use dr_provider::traffic::{Role, TrafficState, View};
use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RData, RecordType};

use super::client;
use super::connection::Connection;
use super::traffic::{LIMIT, Rfc2136};

/// Somebody to ask.
#[derive(Clone, Debug)]
struct Observer {
    name: String,
    /// Where; or why that is not known.
    address: std::result::Result<SocketAddr, String>,
    role: Role,
}

/// Asks each authoritative server (the zone's and the configured ones) and each resolver, all at
/// once.
pub(super) async fn all(record: &Rfc2136) -> Vec<View> {
    let mut observers: Vec<Observer> = std::iter::once(&record.server)
        .chain(&record.servers)
        .map(|address| Observer {
            name: format!("server {address}"),
            address: Ok(*address),
            role: Role::Authority,
        })
        .collect();
    for found in name_servers(record).await {
        let ip = |observer: &Observer| observer.address.as_ref().map(SocketAddr::ip).ok();
        // The configured address of a server wins: its port may be another than 53.
        if ip(&found).is_none() || !observers.iter().any(|known| ip(known) == ip(&found)) {
            observers.push(found);
        }
    }
    observers.extend(record.resolvers.iter().map(|address| Observer {
        name: format!("resolver {address}"),
        address: Ok(*address),
        role: Role::Resolver,
    }));
    futures::future::join_all(observers.into_iter().map(|one| view(record, one))).await
}

async fn view(record: &Rfc2136, observer: Observer) -> View {
    let state = match observer.address {
        Ok(address) => {
            let asked = ask(record, address, observer.role);
            match tokio::time::timeout(LIMIT, asked).await {
                Ok(Ok(state)) => Ok(state),
                Ok(Err(error)) => Err(dr_provider::error::chain(&error)),
                Err(_) => Err(format!("no answer within {LIMIT:?}")),
            }
        }
        Err(why) => Err(why),
    };
    View {
        observer: observer.name,
        role: observer.role,
        state,
        seen_at: record.clock.now(),
    }
}

async fn ask(record: &Rfc2136, server: SocketAddr, role: Role) -> Result<TrafficState> {
    let is_resolver = role == Role::Resolver;
    let mut connection = Connection::open(server, is_resolver).await?;
    let content = if is_resolver {
        client::read_names(&mut connection, &record.names).await?
    } else {
        let zone = record.zone(&mut connection).await?;
        client::read_zone(&mut connection, zone, &record.names).await?
    };
    Ok(content.state(&record.answers))
}

/// Finds the servers that the zone names. If even their names cannot be learnt, the view of
/// `server` says why.
async fn name_servers(record: &Rfc2136) -> Vec<Observer> {
    let found = async {
        let mut connection = Connection::open(record.server, false).await?;
        let zone = record.zone(&mut connection).await?.clone();
        let answer = connection.query(&zone, RecordType::NS).await?;
        let mut observers = Vec::new();
        for name in targets(&answer) {
            let addresses = addresses(&mut connection, &answer, &name).await;
            observers.extend(observe(&name, addresses));
        }
        Result::Ok(observers)
    };
    match tokio::time::timeout(LIMIT, found).await {
        Ok(Ok(observers)) => observers,
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

fn observe(name: &Name, addresses: Vec<IpAddr>) -> Vec<Observer> {
    let observer = |address| Observer {
        name: match &address {
            Ok(address) => format!("server {name} ({address})"),
            Err(_) => format!("server {name}"),
        },
        address,
        role: Role::Authority,
    };
    if addresses.is_empty() {
        return vec![observer(Err("its address cannot be found".to_owned()))];
    }
    addresses
        .into_iter()
        .map(|address| observer(Ok(SocketAddr::new(address, 53))))
        .collect()
}

fn targets(answer: &Message) -> Vec<Name> {
    let target = |data: &RData| match data {
        RData::NS(name) => Some(name.0.clone()),
        _ => None,
    };
    answer
        .answers
        .iter()
        .filter_map(|record| target(&record.data))
        .collect()
}

/// Returns a server's addresses: as sent along, as the same server knows them, or as this machine
/// resolves them.
async fn addresses(connection: &mut Connection, answer: &Message, name: &Name) -> Vec<IpAddr> {
    let along: Vec<IpAddr> = answer
        .additionals
        .iter()
        .filter(|record| record.name == *name)
        .filter_map(|record| record.data.ip_addr())
        .collect();
    if !along.is_empty() {
        return along;
    }
    let mut known = Vec::new();
    for record_type in [RecordType::A, RecordType::AAAA] {
        let records = connection
            .records(name, record_type)
            .await
            .unwrap_or_default();
        known.extend(records.iter().filter_map(|record| record.data.ip_addr()));
    }
    if known.is_empty()
        && let Ok(resolved) = tokio::net::lookup_host((name.to_ascii(), 53)).await
    {
        known.extend(resolved.map(|address| address.ip()));
    }
    known
}
