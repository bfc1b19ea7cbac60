//! The settings of the clusters, as text.

use crate::layout::{Place, SUPERUSER};

/// What stands in the data directory itself, and hence in every copy of it.
///
/// A copy that is opened elsewhere finds no region's settings and then listens to nobody, rather than on port 5432.
pub(super) const IN_DATA_DIRECTORY: &str = "\
# Everything else belongs to the region that this directory stands in.
listen_addresses = ''
unix_socket_directories = ''
include_if_exists '../postgresql.conf'
";

/// Writes the settings of a region.
pub(super) fn of_region(place: &Place) -> String {
    let Place {
        address,
        postgres_port,
        ..
    } = place;
    let access = place.access_file();
    // Dynamic shared memory lies in files of the data directory, so that SIGKILL leaves nothing in /dev/shm.
    format!(
        "\
listen_addresses = '{address}'
port = {postgres_port}
unix_socket_directories = ''
hba_file = '{access}'

wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
max_slot_wal_keep_size = 1GB
wal_sender_timeout = 10s
wal_receiver_status_interval = 1s
hot_standby = on

max_connections = 60
shared_buffers = 16MB
shared_memory_type = mmap
dynamic_shared_memory_type = mmap
min_wal_size = 32MB
max_wal_size = 256MB

password_encryption = scram-sha-256
log_line_prefix = '%m [%p] %q%u@%d %a '
log_checkpoints = off
",
        access = access.display()
    )
}

/// Writes the rules of who may log in: with a password, from the network that the region's address is in.
pub(super) fn access(place: &Place) -> String {
    let network = match place.machine {
        None => "127.0.0.0/8".to_owned(),
        Some(_) => format!("{}/16", place.address),
    };
    format!(
        "\
# type  database     user         address    method
host    all          {SUPERUSER}  {network}  scram-sha-256
host    all          all          {network}  scram-sha-256
host    replication  all          {network}  scram-sha-256
"
    )
}
