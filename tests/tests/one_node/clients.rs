//! Clients that others wrote: Python's `websockets`, Node's `ws`.

use std::process::Command;

use tests::{Relay, process, scripts};

/// Runs one scenario of a client script against `relay`; it must end well.
async fn play(command: Option<Command>, script: &str, relay: &Relay, scenario: &str) {
    let Some(mut command) = command else { return };
    command.arg(scripts::script(script)).arg(relay.public.to_string()).arg(scenario);
    let finished = process::run(command).await.expect_code(0);
    assert_eq!(finished.stdout.trim(), "ok", "{finished:#?}");
}

macro_rules! scenarios {
    ($language:ident, $script:literal: $($name:ident)+) => {
        mod $language {
            $(
                #[tokio::test]
                async fn $name() {
                    let relay = tests::Relay::start();
                    super::play(tests::scripts::$language(), $script, &relay, stringify!($name)).await;
                    relay.wait_for_connections(0).await;
                }
            )+
        }
    };
}

scenarios!(python, "tests/clients/client.py":
    register_and_connect direct_and_broadcast fragments_binary_and_ping takeover order errors);
scenarios!(node, "tests/clients/client.js":
    register_and_connect direct_and_broadcast fragments_binary_and_ping takeover order errors);
