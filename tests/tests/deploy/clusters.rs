//! What the compose file and the Kubernetes manifests describe, with processes in the place of containers: their
//! environments to the letter, a network of their own, their names for each other.

use tests::{eventually, http, netns::Network};

use crate::{
    compose,
    hosts::{Container, Containers, are_one, region},
    kubernetes,
};

/// Registers, as soon as there is a leader.
async fn registers(with: &Container, agent: &str) {
    eventually("a name is registered", async || with.register(agent).await == 200).await;
}

#[test]
fn four_composed_containers_are_one_relay() {
    let trial = [("TLS_SELF_SIGNED", "true")];
    let Some(environments) = compose::environments("compose.cluster.yaml", &trial) else { return };
    let names = ["relay-1", "relay-2", "relay-3", "edge"];
    let Some(network) = Network::with(names.len()) else { return };
    network.run(async || {
        let containers = Containers::on(&network);
        containers
            .name(&names.iter().zip(0..).map(|(name, host)| (*name, host)).collect::<Vec<_>>());
        let start = |host: usize| containers.start(names[host], &environments[names[host]], host);
        let mut all: Vec<Container> = (0..names.len()).map(start).collect();
        are_one(&all.iter().collect::<Vec<_>>()).await;
        assert_eq!(region(&all[0], "edge").await, "edge");
        let plain = http::get((all[3].address, 8080).into(), "/health").await;
        assert_eq!(plain.status, 301, "agents come by TLS");

        registers(&all[0], "alice").await;
        assert_eq!(all[3].register("alice").await, 409, "the name is taken at the edge, too");

        // One of three may be lost.
        all[1].kill();
        registers(&all[3], "bob").await;
        all[1] = start(1);
        are_one(&all.iter().collect::<Vec<_>>()).await;

        for host in 0..names.len() {
            all[host].stop();
            all[host] = start(host);
            are_one(&all.iter().collect::<Vec<_>>()).await;
        }
        registers(&all[1], "carol").await;
        assert_eq!(all[2].register("bob").await, 409);
    });
}

#[test]
fn pods_are_one_relay_and_stay_so_when_their_addresses_change() {
    let Some(environments) = kubernetes::environments() else { return };
    let Some(network) = Network::with(5) else { return };
    network.run(async || {
        let (containers, [spare, edge]) = (Containers::on(&network), [3, 4]);
        let pods = ["arc-relay-0", "arc-relay-1", "arc-relay-2"];
        let domain = "arc-relay-mesh.arc-relay.svc.cluster.local";
        let whole = pods.map(|pod| format!("{pod}.{domain}"));
        containers.name(&[(&whole[0], 0), (&whole[1], 1), (&whole[2], 2)]);
        let start = |pod: usize, host| containers.start(pods[pod], &environments[pods[pod]], host);
        // Parallel: all at once.
        let mut all: Vec<Container> = (0..3).map(|pod| start(pod, pod)).collect();
        are_one(&all.iter().collect::<Vec<_>>()).await;
        registers(&all[0], "alice").await;

        // A pod that is made anew has another address, and its volume.
        all[1].stop();
        containers.name(&[(&whole[0], 0), (&whole[1], spare), (&whole[2], 2)]);
        all[1] = start(1, spare);
        are_one(&all.iter().collect::<Vec<_>>()).await;
        registers(&all[1], "bob").await;

        if let Some(environment) = kubernetes::edge(&environments[pods[0]]) {
            all.push(containers.start("arc-relay-edge-0", &environment, edge));
            are_one(&all.iter().collect::<Vec<_>>()).await;
            assert_eq!(region(&all[0], "arc-relay-edge-0").await, "edge");
            assert_eq!(all[3].register("alice").await, 409);
        }
    });
}
