//! `memberlist`: who is alive, in a distributed installation.

use crate::block::block;
use crate::blocks::clients::ClientTls;
use crate::units::{ByteSize, CommaList, GoDuration, TextList};

block! {
    /// Gossip within an availability zone first.
    pub struct ZoneAwareRouting {
        /// Switch it on.
        ignored enabled: bool = false,
        /// Zone of this process.
        ignored instance_availability_zone: String = "",
        /// member or bridge.
        ignored role: String = "member",
    }
}

block! {
    /// Measures how fast news travel.
    pub struct PropagationDelay {
        /// Switch it on.
        ignored enabled: bool = false,
        /// Time between measurements.
        ignored beacon_interval: GoDuration = GoDuration::minutes(1),
        /// Time after which a measurement is forgotten.
        ignored beacon_lifetime: GoDuration = GoDuration::minutes(10),
        /// Log slower news; 0 means none.
        ignored log_beacons_latency_longer_than: GoDuration = GoDuration::ZERO,
    }
}

block! {
    /// Who is alive, in a distributed installation.
    pub struct Memberlist {
        /// Name of this process; the host name when empty.
        used node_name: String = "",
        /// Add random characters to the name.
        used randomize_node_name: bool = true,
        /// Longest time for an exchange.
        ignored stream_timeout: GoDuration = GoDuration::seconds(2),
        /// How often news are sent on.
        ignored retransmit_factor: u32 = 2u32,
        /// Time between full exchanges.
        ignored pull_push_interval: GoDuration = GoDuration::seconds(30),
        /// Time between news.
        used gossip_interval: GoDuration = GoDuration::seconds(1),
        /// Members told at once.
        ignored gossip_nodes: u32 = 2u32,
        /// How long dead members are told.
        ignored gossip_to_dead_nodes_time: GoDuration = GoDuration::seconds(30),
        /// Time after which a dead member's name may come from another address.
        ignored dead_node_reclaim_time: GoDuration = GoDuration::ZERO,
        /// Compress messages.
        ignored compression_enabled: bool = false,
        /// Time between notices of changes.
        ignored notify_interval: GoDuration = GoDuration::ZERO,
        /// Received messages that wait.
        ignored received_messages_queue_size: u32 = 1024u32,
        /// Handled messages that wait.
        ignored processed_messages_queue_size: u32 = 1024u32,
        /// How messages are compressed.
        ignored compression_algorithm: String = "lzw",
        /// Address to announce; empty means the own one.
        used advertise_addr: String = "",
        /// Port to announce.
        used advertise_port: u16 = 7946u16,
        /// Name of the cluster; others are not let in.
        used cluster_label: String = "",
        /// Let others in.
        later cluster_label_verification_disabled: bool = false,
        /// Members to begin with: hosts and ports, or dns+ and dnssrv+ names.
        used join_members: TextList = TextList::default(),
        /// First wait between tries to join.
        later min_join_backoff: GoDuration = GoDuration::seconds(1),
        /// Longest wait between tries to join.
        later max_join_backoff: GoDuration = GoDuration::minutes(1),
        /// Tries to join.
        later max_join_retries: u32 = 10u32,
        /// Stop when the first try to join fails.
        later abort_if_cluster_fast_join_fails: bool = false,
        /// Members that the first try must find.
        later abort_if_cluster_fast_join_fails_min_nodes: u32 = 1u32,
        /// Stop when joining fails.
        used abort_if_cluster_join_fails: bool = false,
        /// Time between new tries to join; 0 means never.
        used rejoin_interval: GoDuration = GoDuration::ZERO,
        /// Members to join again.
        later rejoin_seed_nodes: CommaList = CommaList::default(),
        /// How long members that left are remembered.
        ignored left_ingesters_timeout: GoDuration = GoDuration::minutes(5),
        /// How long removed values are remembered.
        ignored obsolete_entries_timeout: GoDuration = GoDuration::seconds(30),
        /// Longest time to leave.
        used leave_timeout: GoDuration = GoDuration::seconds(20),
        /// Longest time to send the last news.
        ignored broadcast_timeout_for_local_updates_on_shutdown: GoDuration = GoDuration::seconds(10),
        /// Bytes of messages to remember for the status page.
        ignored message_history_buffer_bytes: ByteSize = ByteSize(0),
        /// Notices of changes that wait.
        ignored watch_prefix_buffer_size: u32 = 128u32,
        /// Addresses to listen on; empty means all.
        used bind_addr: TextList = TextList::default(),
        /// Port to listen on.
        used bind_port: u16 = 7946u16,
        /// Longest time to connect.
        ignored packet_dial_timeout: GoDuration = GoDuration::seconds(2),
        /// Longest time to write.
        ignored packet_write_timeout: GoDuration = GoDuration::seconds(5),
        /// Writes at once.
        ignored max_concurrent_writes: u32 = 3u32,
        /// Longest time to wait for a write.
        ignored acquire_writer_timeout: GoDuration = GoDuration::millis(250),
        /// Use TLS.
        used tls_enabled: bool = false,
        /// Gossip within an availability zone first.
        ignored zone_aware_routing: ZoneAwareRouting = ZoneAwareRouting::default(),
        /// Measures how fast news travel.
        ignored propagation_delay_tracker: PropagationDelay = PropagationDelay::default(),
        ..tls: ClientTls = ClientTls::default(),
    }
}
