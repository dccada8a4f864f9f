//! The Kubernetes manifests: each file against Kubernetes' own schemas, and what `kubectl kustomize` makes of all.

use std::{collections::BTreeMap, path::PathBuf, process::Command};

use serde_json::{Value, json};
use tests::skip_for_want_of;

use crate::{
    compose::Environment,
    files::{assert_settings, assignments, has, path, said, text, yaml},
    image,
};

const SCHEMA: &str = "kubernetes-1.31.json";

/// The resources of the base as they are written; none, and said so, where they cannot be read.
fn base() -> Option<Vec<Value>> {
    let files = ["mesh", "public", "statefulset", "disruption", "network"];
    let files: Vec<PathBuf> =
        files.iter().map(|name| path(&format!("kubernetes/base/{name}.yaml"))).collect();
    let listed = text("kubernetes/base/kustomization.yaml");
    assert_eq!(listed.matches(".yaml\n").count(), files.len(), "these are all");
    yaml(SCHEMA, &files)
}

/// What `kubectl apply --kustomize` would apply; none, and said so, without `kubectl`.
fn rendered(overlay: &str) -> Option<Vec<Value>> {
    if !has("kubectl") {
        skip_for_want_of("kubectl");
        return None;
    }
    let mut kubectl = Command::new("kubectl");
    let text = said(kubectl.arg("kustomize").arg(path("kubernetes").join(overlay)));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("rendered.yaml");
    std::fs::write(&file, text).expect("a test writes into its folder");
    yaml(SCHEMA, &[file])
}

fn one<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<_> = documents.iter().filter(|one| one["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "one {kind}");
    found[0]
}

fn container(set: &Value) -> &Value {
    &set["spec"]["template"]["spec"]["containers"][0]
}

/// The environment of a pod of that name, as the kubelet makes it, on top of the image's; `settings` is the
/// `ConfigMap`'s.
fn environment(set: &Value, pod: &str, settings: Vec<(String, String)>) -> Environment {
    let mut all: Environment = image::environment().into_iter().chain(settings).collect();
    for variable in container(set)["env"].as_array().expect("it has an environment") {
        let value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("metadata.name") => pod.to_owned(),
            Some("metadata.namespace") => "arc-relay".to_owned(),
            Some(other) => panic!("{other} is not made here"),
            None => {
                let written = variable["value"].as_str().expect("it has a value").to_owned();
                // Only what stands before a variable can be in it.
                all.iter()
                    .fold(written, |text, (name, value)| text.replace(&format!("$({name})"), value))
            }
        };
        let name = variable["name"].as_str().expect("it has a name");
        all.insert(name.to_owned(), value);
    }
    assert!(all.values().all(|value| !value.contains("$(")), "{all:?}");
    all
}

/// The environments of the base's pods, for a trial; none, and said so, where they cannot be read.
pub(crate) fn environments() -> Option<BTreeMap<String, Environment>> {
    let documents = base()?;
    let mut settings = assignments(&text("kubernetes/base/settings.env"));
    let trial = text("kubernetes/trial/kustomization.yaml");
    let literals = trial.lines().find_map(|line| line.trim().strip_prefix("literals: ["));
    let literals = literals.and_then(|list| list.strip_suffix(']')).expect("the trial has its own");
    settings.extend(assignments(&literals.replace(", ", "\n")));
    let pod = |number: u32| format!("arc-relay-{number}");
    let set = one(&documents, "StatefulSet");
    Some((0..3).map(|n| (pod(n), environment(set, &pod(n), settings.clone()))).collect())
}

/// The environment of the edge's pod, likewise; none without `kubectl`.
pub(crate) fn edge(settings: &Environment) -> Option<Environment> {
    let documents = rendered("edge")?;
    let settings = settings.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Some(environment(one(&documents, "StatefulSet"), "arc-relay-edge-0", settings))
}

#[test]
fn the_pods_are_what_the_relay_needs() {
    let Some(documents) = base() else { return };
    let set = &one(&documents, "StatefulSet")["spec"];
    assert_eq!(set["podManagementPolicy"], "Parallel", "the first start needs all seeds");
    let mesh = documents.iter().find(|one| one["spec"]["clusterIP"] == "None");
    let mesh = mesh.expect("a headless service gives the seeds their names");
    assert_eq!(mesh["spec"]["publishNotReadyAddresses"], true, "… before any is ready");
    assert_eq!(set["serviceName"], mesh["metadata"]["name"]);
    assert_eq!(set["replicas"], 3);

    let pod = &set["template"]["spec"];
    let sleep =
        container(one(&documents, "StatefulSet"))["lifecycle"]["preStop"]["sleep"]["seconds"]
            .as_u64();
    let drain = assignments(&text("kubernetes/base/settings.env"));
    let drain = drain.iter().find_map(|(name, value)| (name == "DRAIN_DEADLINE").then_some(value));
    let drain = drain.and_then(|text| text.strip_suffix('s')?.parse::<u64>().ok());
    let needed = sleep.expect("it sleeps") + drain.expect("it drains") + 5;
    assert!(pod["terminationGracePeriodSeconds"].as_u64() >= Some(needed), "a drain has its time");
    let user = text("image_root.sh");
    let user = user.lines().find_map(|line| line.strip_prefix("user=")).expect("it has a user");
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(pod["securityContext"][key].to_string(), user, "{key}");
    }
    assert_eq!(pod["enableServiceLinks"], false, "no settings that nobody has made");
}

/// What Kubernetes' Pod Security Standard `restricted` asks for, and more.
#[test]
fn the_pods_may_do_little() {
    let Some(documents) = base() else { return };
    let set = one(&documents, "StatefulSet");
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod["automountServiceAccountToken"], false);
    for forbidden in ["hostNetwork", "hostPID", "hostIPC", "volumes"] {
        assert!(pod[forbidden].is_null(), "{forbidden}");
    }
    let relay = &container(set)["securityContext"];
    assert_eq!(relay["allowPrivilegeEscalation"], false);
    assert_eq!(relay["readOnlyRootFilesystem"], true);
    assert_eq!(relay["capabilities"], json!({ "drop": ["ALL"] }));
    assert!(container(set)["resources"]["limits"]["memory"].is_string());
}

#[test]
fn the_container_is_the_image() {
    let version = concat!("newTag: ", env!("CARGO_PKG_VERSION"));
    assert!(
        text("kubernetes/base/kustomization.yaml").contains(version),
        "this release: {version}"
    );
    let Some(documents) = base() else { return };
    let relay = container(one(&documents, "StatefulSet"));
    let ports = relay["ports"].as_array().expect("it has ports");
    let exposed = |port: &Value| {
        let over = port["protocol"].as_str().unwrap_or("TCP").to_lowercase();
        format!("{}/{over}", port["containerPort"])
    };
    assert_eq!(ports.iter().map(exposed).collect::<Vec<_>>(), image::ports());
    let names: Vec<&Value> = ports.iter().map(|port| &port["name"]).collect();
    for (probe, path) in
        [("startupProbe", "/stats"), ("livenessProbe", "/stats"), ("readinessProbe", "/ready")]
    {
        let get = &relay[probe]["httpGet"];
        assert!(get["path"] == path && get["port"] == "ops" && names.contains(&&get["port"]));
    }
    for service in documents.iter().filter(|one| one["kind"] == "Service") {
        for port in service["spec"]["ports"].as_array().expect("it has ports") {
            assert!(names.contains(&&port["targetPort"]), "{port}");
        }
    }
    for rule in
        one(&documents, "NetworkPolicy")["spec"]["ingress"].as_array().expect("it has rules")
    {
        for port in rule["ports"].as_array().expect("it names ports") {
            assert!(names.contains(&&port["port"]), "{port}");
            let to_all = rule["from"].is_null();
            assert_eq!(to_all, ["wss", "http"].iter().any(|open| port["port"] == *open), "{port}");
        }
    }
    let set = relay["env"].as_array().expect("it has an environment");
    let set = set.iter().filter_map(|variable| variable["name"].as_str());
    assert_settings("the container", set.filter(|name| *name != "POD_NAMESPACE"));
    let settings = assignments(&text("kubernetes/base/settings.env"));
    assert_settings("settings.env", settings.iter().map(|(name, _)| name.as_str()));
    assert!(settings.iter().all(|(name, _)| !name.contains("SECRET") && !name.ends_with("_KEY")));
    assert_eq!(relay["volumeMounts"][0]["mountPath"], "/var/lib/arc-relay");
}

/// Whether a selector takes pods with those labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().expect("it selects by labels");
    !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value)
}

/// What the resources but a `NetworkPolicy`'s sources select their own pods by.
fn selectors(documents: &[Value]) -> Vec<&Value> {
    let selector = |one: &'_ Value| match one["kind"].as_str() {
        Some("Service") => Some(["selector", ""]),
        Some("PodDisruptionBudget" | "StatefulSet") => Some(["selector", "matchLabels"]),
        Some("NetworkPolicy") => Some(["podSelector", "matchLabels"]),
        _ => None,
    };
    let found = documents.iter().filter_map(|one| {
        let [outer, inner] = selector(one)?;
        let outer = &one["spec"][outer];
        Some(if inner.is_empty() { outer } else { &outer[inner] })
    });
    found.collect()
}

#[test]
fn what_is_applied_fits_together() {
    for overlay in ["base", "edge", "trial"] {
        let Some(documents) = rendered(overlay) else { return };
        let set = one(&documents, "StatefulSet");
        let labels = &set["spec"]["template"]["metadata"]["labels"];
        for selector in selectors(&documents) {
            assert!(selects(selector, labels), "{overlay}: {selector} and {labels}");
        }
        let settings = &container(set)["envFrom"][0]["configMapRef"]["name"];
        assert_eq!(*settings, one(&documents, "ConfigMap")["metadata"]["name"], "{overlay}");
        assert!(documents.iter().all(|one| one["metadata"]["namespace"] == "arc-relay"));
        assert!(documents.iter().all(|one| one["kind"] != "Secret"), "none stands in a file");
    }
}

#[test]
fn the_edge_and_those_that_keep_the_names_are_not_mistaken_for_each_other() {
    let (Some(base), Some(edge)) = (rendered("base"), rendered("edge")) else { return };
    for (ours, others) in [(&base, &edge), (&edge, &base)] {
        let labels = &one(others, "StatefulSet")["spec"]["template"]["metadata"]["labels"];
        // Two budgets for one pod, and it could not be evicted at all.
        assert!(selectors(ours).iter().all(|selector| !selects(selector, labels)));
        // But each may speak to the other.
        let from = &one(ours, "NetworkPolicy")["spec"]["ingress"][1]["from"][0]["podSelector"];
        let expression = &from["matchExpressions"][0];
        let label = &labels[expression["key"].as_str().expect("a label")];
        assert!(from["matchLabels"].is_null() && expression["values"][0] == *label, "{from}");
    }
}
