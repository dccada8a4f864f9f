//! The compose files.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{
    files::{assert_settings, assignments, path, text, yaml},
    image,
};

/// One service's settings, `.env` filled in.
pub(crate) type Environment = BTreeMap<String, String>;

/// The services of that file; none, and said so, where it cannot be read.
fn services(file: &str) -> Option<Map<String, Value>> {
    let mut documents = yaml("compose-spec.json", &[path(file)])?;
    Some(documents.pop()?["services"].as_object().expect("it has services").clone())
}

/// The environments that its containers have, the image's included, when `.env` says `filled_in`.
pub(crate) fn environments(
    file: &str,
    filled_in: &[(&str, &str)],
) -> Option<BTreeMap<String, Environment>> {
    let own = |service: &Value| {
        let set = service["environment"].as_object().expect("it has settings").iter();
        let set = set.map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (name.clone(), interpolated(&text, filled_in))
        });
        image::environment().into_iter().chain(set).collect()
    };
    Some(services(file)?.iter().map(|(name, service)| (name.clone(), own(service))).collect())
}

/// `${NAME:-default}` is what `.env` says of it, or the default.
fn interpolated(text: &str, filled_in: &[(&str, &str)]) -> String {
    let Some(inner) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
        assert!(!text.contains('$'), "{text}");
        return text.to_owned();
    };
    let (name, default) = inner.split_once(":-").expect("each has a default");
    let given = filled_in.iter().find(|(known, _)| *known == name);
    given.map_or(default, |(_, value)| value).to_owned()
}

#[test]
fn compose_takes_them_and_they_set_what_there_is_to_set() {
    for (file, names) in [
        ("compose.yaml", &["relay"][..]),
        ("compose.cluster.yaml", &["edge", "relay-1", "relay-2", "relay-3"]),
    ] {
        let Some(services) = services(file) else { return };
        assert_eq!(services.keys().collect::<Vec<_>>(), names, "{file}: no Redis, no proxy");
        for (name, service) in &services {
            let set = service["environment"].as_object().expect("it has settings");
            assert_settings(name, set.keys().map(String::as_str));
            assert_is_kept_small(name, service);
            assert_ports(name, service);
            assert_keeps_its_data(name, service);
        }
    }
}

/// No rights, no writing but to its volume, time to drain, logs that end somewhere, no secrets.
fn assert_is_kept_small(name: &str, service: &Value) {
    assert_eq!(service["cap_drop"][0], "ALL", "{name}");
    assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
    assert_eq!(service["read_only"], true, "{name}");
    let grace = service["stop_grace_period"].as_str().and_then(|text| text.strip_suffix('s'));
    assert!(grace.and_then(|text| text.parse().ok()).is_some_and(|s: u32| s >= 35), "{name}");
    assert!(service["logging"]["options"]["max-file"].is_string(), "{name}: logs are rotated");
    assert!(service["ulimits"]["nofile"].as_u64() >= Some(11_152), "{name}");
    let set = service["environment"].as_object().expect("it has settings");
    for secret in ["CLUSTER_SECRET", "REGISTRATION_KEY", "ACME_EAB_HMAC"] {
        assert!(!set.contains_key(secret), "{name}: {secret} is for secrets.env");
    }
}

/// What is published is a port of the image; the ops listener's to this machine alone, the mesh's to nobody.
fn assert_ports(name: &str, service: &Value) {
    let inside: BTreeSet<String> = image::ports().into_iter().collect();
    for port in service["ports"].as_array().expect("it has ports") {
        let port = port.as_str().expect("written as text: 80:80 would be a number in base 60");
        let (outside, container) = port.rsplit_once(':').expect("outside and inside");
        assert!(inside.contains(&format!("{container}/tcp")), "{name}: {port}");
        assert!(container != "8081" || outside.starts_with("127.0.0.1:"), "{name}: {port}");
    }
}

fn assert_keeps_its_data(name: &str, service: &Value) {
    let volumes = service["volumes"].as_array().expect("it has a volume");
    let volume = volumes[0].as_str().expect("it is text");
    assert!(volumes.len() == 1 && volume.ends_with(":/var/lib/arc-relay"), "{name}: {volume}");
}

#[test]
fn what_stands_in_the_example_of_env_is_asked_for() {
    let example = text("compose.env").replace("\n#TLS", "\nTLS");
    for file in ["compose.yaml", "compose.cluster.yaml"] {
        for (name, _) in assignments(&example) {
            assert!(text(file).contains(&format!("${{{name}:-")), "{file} asks for {name}");
        }
    }
}
