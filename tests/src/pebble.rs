//! A certificate authority of the test's own: Pebble, from Debian's package, on ports and in a folder of
//! its own, and a DNS server that answers what the test says.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{eventually, http, skip};

/// What Pebble is told beside its ports.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Of a hundred nonces, so many are refused.
    pub reject_nonces: u8,
    /// Account keys by which it knows its clients: name and base64url key. None: it takes anybody.
    pub external_account: Option<(String, String)>,
    /// How long its certificates are good, in seconds; 0: five years.
    pub validity_s: u64,
}

/// A running authority; ended and removed when dropped.
pub struct Pebble {
    folder: TempDir,
    options: Options,
    port: u16,
    management: u16,
    dns: u16,
    /// Where it looks for who has a name: the relay's TLS port, and its HTTP port.
    pub tls_port: u16,
    /// See there.
    pub http_port: u16,
    authority: Option<Ended>,
    _names: Ended,
    names_port: u16,
}

/// A process that ends with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pebble {
    /// Starts one; none where it is not installed, which skips the test visibly.
    pub async fn start(options: Options) -> Option<Self> {
        let is_there = |program| Command::new(program).arg("-h").output().is_ok();
        if !is_there("pebble") || !is_there("pebble-challtestsrv") {
            skip("pebble is not installed: apt-get install pebble");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder can be made");
        let (dns, names_port) = (free_port(), free_port());
        let mut names = Command::new("pebble-challtestsrv");
        names.args([
            "-defaultIPv4",
            "127.0.0.1",
            "-defaultIPv6",
            "",
            "-http01",
            "",
            "-https01",
            "",
        ]);
        names.args(["-tlsalpn01", ""]);
        names.args(["-dns01".into(), format!("127.0.0.1:{dns}")]);
        names.args(["-management".into(), format!("127.0.0.1:{names_port}")]);
        let names = Ended(quiet(&mut names).spawn().expect("the DNS server can be started"));
        let mut pebble = Self {
            folder,
            options,
            port: free_port(),
            management: free_port(),
            dns,
            tls_port: free_port(),
            http_port: free_port(),
            authority: None,
            _names: names,
            names_port,
        };
        pebble.write_files();
        listens("the DNS server", names_port).await;
        pebble.begin().await;
        Some(pebble)
    }

    /// The directory, an https URL.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// What vouches for the directory's own certificate: a PEM file.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What vouches for the certificates that it issues, in its present life: a PEM file.
    pub async fn root_file(&self) -> PathBuf {
        let file = self.folder.path().join("root.pem");
        let mut fetch = Command::new("curl");
        fetch.args(["-sS", "--fail", "--cacert"]).arg(self.ca_file()).arg("-o").arg(&file);
        fetch.arg(format!("https://localhost:{}/roots/0", self.management));
        crate::process::run(fetch).await.expect_code(0);
        file
    }

    /// Lets a name lead to this address from now on.
    pub async fn name(&self, host: &str, address: Ipv4Addr) {
        let to = SocketAddr::from(([127, 0, 0, 1], self.names_port));
        let body = |value: Value| value.to_string();
        let cleared = body(json!({ "host": host }));
        http::post(to, "/clear-a", cleared).await.expect_status(200);
        let added = body(json!({ "host": host, "addresses": [address.to_string()] }));
        http::post(to, "/add-a", added).await.expect_status(200);
    }

    /// Takes it down; its accounts, orders and root are gone with it.
    pub fn stop(&mut self) {
        self.authority = None;
    }

    /// Starts it again after [`stop`](Self::stop), at the same place.
    pub async fn begin(&mut self) {
        let mut authority = Command::new("pebble");
        authority.arg("-config").arg(self.folder.path().join("pebble.json"));
        authority.args(["-dnsserver".into(), format!("127.0.0.1:{}", self.dns)]);
        authority.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        authority.env("PEBBLE_WFE_NONCEREJECT", self.options.reject_nonces.to_string());
        let log = fs::File::create(self.folder.path().join("pebble.log")).expect("it can be made");
        authority.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        self.authority = Some(Ended(authority.spawn().expect("pebble can be started")));
        listens("pebble", self.port).await;
    }

    /// What it has logged in its present life.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("pebble.log")).unwrap_or_default()
    }

    fn write_files(&self) {
        let write = |name: &str, text: &str| {
            fs::write(self.folder.path().join(name), text).expect("the folder can be written");
        };
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Another name than its certificates', or OpenSSL takes those for self-signed.
        params.distinguished_name.push(DnType::CommonName, "the authority's own authority");
        let key = || KeyPair::generate().expect("keys can be made");
        let ca = CertifiedIssuer::self_signed(params, key()).expect("a CA can be made");
        let own = key();
        let certificate = CertificateParams::new(["localhost".into(), "127.0.0.1".into()])
            .and_then(|params| params.signed_by(&own, &ca))
            .expect("a certificate can be made");
        write("ca.pem", &ca.pem());
        write("cert.pem", &certificate.pem());
        write("key.pem", &own.serialize_pem());
        let file = |name: &str| self.folder.path().join(name);
        let mut config = json!({
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": file("cert.pem"), "privateKey": file("key.pem"),
            "httpPort": self.http_port, "tlsPort": self.tls_port, "ocspResponderURL": "",
            "externalAccountBindingRequired": self.options.external_account.is_some(),
        });
        if let Some((kid, hmac)) = &self.options.external_account {
            config["externalAccountMACKeys"] = json!({ kid: hmac });
        }
        if self.options.validity_s > 0 {
            config["certificateValidityPeriod"] = json!(self.options.validity_s);
        }
        write("pebble.json", &json!({ "pebble": config }).to_string());
    }
}

async fn listens(what: &str, port: u16) {
    let connects =
        || async move { tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() };
    eventually(&format!("{what} listens"), connects).await;
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// A port that is free now, for TCP and UDP, on every loopback address.
fn free_port() -> u16 {
    loop {
        let Ok(listener) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)) else { continue };
        let port = listener.local_addr().expect("it is bound").port();
        if UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}
