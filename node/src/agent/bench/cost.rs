//! What the relay and this program cost: CPU time and memory, read before and after.

use std::time::Duration;

use serde::Serialize;

use super::flaw::Flaw;
use crate::agent::{
    connect::Connector,
    failure::Failure,
    http::{self, Call},
};

/// More than any relay's metrics have.
const METRICS_BYTES_MAX: usize = 16 << 20;
/// What Linux counts CPU time in, seen from user space: hundredths of a second (`proc(5)`, `USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// What all nodes have used so far, and hold now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct RelayCost {
    /// Seconds of CPU since their start.
    pub(super) cpu_s: f64,
    /// Resident memory.
    pub(super) resident_bytes: f64,
}

/// Reads the cost of the nodes at these ops ports; none if none are given.
pub(super) async fn of_relay(
    ops: &[Connector],
    limit: Duration,
) -> Result<Option<RelayCost>, Failure> {
    let mut sum = RelayCost::default();
    for node in ops {
        let mut text = Vec::new();
        let call = Call { path: "/metrics", ..Call::default() };
        http::download(node, limit, call, |piece| {
            if text.len() + piece.len() > METRICS_BYTES_MAX {
                return Err(Failure::NotRelay("metrics without an end".into()));
            }
            text.extend_from_slice(piece);
            Ok(())
        })
        .await?;
        let cost = read(&String::from_utf8_lossy(&text));
        let RelayCost { cpu_s, resident_bytes } =
            cost.ok_or_else(|| Flaw::NoCost(node.endpoint().to_string()))?;
        sum.cpu_s += cpu_s;
        sum.resident_bytes += resident_bytes;
    }
    Ok((!ops.is_empty()).then_some(sum))
}

/// The two metrics, in Prometheus's text format.
fn read(text: &str) -> Option<RelayCost> {
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?;
            // Labels, should there be some, say nothing of interest here.
            let value = rest.rsplit_once('}').map_or(rest, |(_, value)| value);
            value.strip_prefix(' ')?.split(' ').next()?.parse().ok()
        })
    };
    let cpu_s = value("process_cpu_seconds_total")?;
    Some(RelayCost { cpu_s, resident_bytes: value("process_resident_memory_bytes")? })
}

/// What this program and the machine that it runs on have used so far, in seconds of CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct OwnCost {
    /// This program's.
    pub(super) cpu_s: f64,
    /// Of all programs on this machine.
    pub(super) machine_busy_s: f64,
}

/// Reads them from `/proc`; none where there is no such thing.
pub(super) fn of_client() -> Option<OwnCost> {
    let own = std::fs::read_to_string("/proc/self/stat").ok()?;
    let machine = std::fs::read_to_string("/proc/stat").ok()?;
    Some(OwnCost { cpu_s: own_seconds(&own)?, machine_busy_s: busy_seconds(&machine)? })
}

/// User and system time: fields 14 and 15 of `/proc/self/stat`, the second of which may have spaces.
fn own_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// All but idle, waiting for disks and what guests are counted twice for, of the first line.
fn busy_seconds(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = line.split_whitespace().map_while(|tick| tick.parse().ok()).collect();
    let [user, nice, system, _idle, _wait, irq, soft_irq, steal, ..] = ticks.as_slice() else {
        return None;
    };
    Some((user + nice + system + irq + soft_irq + steal) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relays_cost_is_found_among_other_metrics() {
        let text = "# HELP process_cpu_seconds_total x\nprocess_cpu_seconds_total_x 1\n\
            process_cpu_seconds_total 12.5\nprocess_resident_memory_bytes{node=\"a b\"} 1.5e7 1\n";
        assert_eq!(read(text), Some(RelayCost { cpu_s: 12.5, resident_bytes: 15_000_000.0 }));
        assert_eq!(read("arc_agents 1\n"), None);
    }

    #[test]
    fn the_clients_cost_is_read_whatever_its_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(own_seconds(stat), Some(3.0));
        assert_eq!(busy_seconds("cpu  100 100 100 9999 9999 50 50 0 0 0\ncpu0 1\n"), Some(4.0));
        assert_eq!(own_seconds("nonsense"), None);
    }
}
