//! The `OpenAPI` document that a relay serves.

use std::{fs, process::Command};

use tests::{Relay, http, process, scripts};

#[tokio::test]
async fn the_document_is_valid_by_the_books() {
    let relay = Relay::start();
    let document = http::get(relay.ops, "/openapi.json").await.expect_status(200);
    let json = document.json();
    assert_eq!(json["info"]["title"], "arc-relay");
    assert!(json["paths"]["/agents/{id}/ban"]["delete"].is_object(), "{json}");
    http::get(relay.public, "/openapi.json").await.expect_error(404, "not_found");
    let Some(python) = scripts::python() else { return };
    let path = relay.folder().join("openapi.json");
    fs::write(&path, &document.body).expect("the folder can be written");
    let mut command: Command = python;
    command.args(["-m", "openapi_spec_validator"]).arg(&path);
    let ended = process::run(command).await.expect_code(0);
    assert!(ended.stdout.contains("OK"), "{ended:?}");
}
