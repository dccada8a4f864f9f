//! Looks at the machine: ports, limits, memory, disk, and the files that the configuration names. Judges
//! nothing, and leaves everything as it was.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::{Access, access, statvfs};
use socket2::{Domain, Protocol, Socket, Type};
use tls::{
    agents::Chain,
    mesh::{MeshIdentity, Wall},
};
use zeroize::Zeroizing;

use super::facts::{Certificate, Disk, Memory, Mesh, Port, SecretSetting, Validity};
use crate::{
    clock::Clock,
    config::{CertificateSource, Chosen, Config, Credentials, settings},
};

/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Those of who is not of the group either, which an operator may have made for the purpose.
const EVERYBODY: u32 = 0o007;

/// The settings of a service that is installed as `deploy/` does it.
const SERVICE_SETTINGS: &str = "/etc/arc-relay/environment";

/// The settings of this machine's service, where there is one and `chosen` are not its own: it says where its data is.
pub(super) fn unread(chosen: &[Chosen]) -> Option<&'static Path> {
    let says_where = chosen.iter().any(|it| it.variable == "DATA_DIR");
    let service = Path::new(SERVICE_SETTINGS);
    (!says_where && service.exists()).then_some(service)
}

/// The ports that the node wants, each tried.
pub(super) fn ports(config: &Config) -> Vec<Port> {
    let tcp = |variable, host, address| tried(variable, host, address, false);
    let mut ports = Vec::new();
    if config.tls.source().is_some() {
        ports.push(tcp("TLS_PORT", "HOST", (config.host, config.tls.port).into()));
        if let Some(port) = config.tls.http_port {
            ports.push(tcp("HTTP_PORT", "HOST", (config.host, port).into()));
        }
    } else {
        ports.push(tcp("PORT", "HOST", (config.host, config.port).into()));
    }
    ports.push(tcp("STATS_PORT", "STATS_HOST", (config.stats_host, config.stats_port).into()));
    let mesh = &config.mesh;
    if !mesh.seeds.is_empty() {
        ports.push(tried("MESH_PORT", "MESH_HOST", (mesh.host, mesh.port).into(), true));
    }
    ports
}

fn tried(variable: &'static str, host: &'static str, address: SocketAddr, udp: bool) -> Port {
    let is_any = address.ip() == Ipv6Addr::UNSPECIFIED;
    let tried = match bound(address, udp) {
        // A system without IPv6: the node does the same.
        Err(error) if is_any && !is_taken(&error) => {
            bound((Ipv4Addr::UNSPECIFIED, address.port()).into(), udp)
        }
        tried => tried,
    };
    Port { variable, host, address, udp, tried: tried.map_err(|error| error.kind()) }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied)
}

/// Binds as the node does, and lets go.
fn bound(address: SocketAddr, udp: bool) -> io::Result<()> {
    let (kind, protocol) =
        if udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Of UDP sockets it would hide that one is there.
    socket.set_reuse_address(!udp)?;
    socket.bind(&address.into())
}

/// How many files a process may have open that raises its limit as far as it may.
pub(super) fn file_limit() -> u64 {
    rlimit::Resource::NOFILE.get().map_or(u64::MAX, |(_, hard)| hard)
}

/// The largest buffers of UDP sockets, for receiving and for sending, in bytes.
pub(super) fn buffers() -> Option<(u64, u64)> {
    Some((number_in("/proc/sys/net/core/rmem_max")?, number_in("/proc/sys/net/core/wmem_max")?))
}

fn number_in(path: impl AsRef<Path>) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The machine's memory, and what this control group may have of it.
pub(super) fn memory() -> Memory {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_memory(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = group_folders(&groups).into_iter().filter_map(|folder| {
        number_in(folder.join("memory.max"))
            .or_else(|| number_in(folder.join("memory.limit_in_bytes")))
    });
    // The first version of control groups has a number for "no limit" that no machine has.
    let limit = limits.min().filter(|limit| total.is_none_or(|total| *limit < total));
    Memory { total, limit }
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The folders that may limit the memory of the group in `/proc/self/cgroup`, itself and those above.
fn group_folders(groups: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let root = match controllers {
            "" => Path::new("/sys/fs/cgroup"),
            names if names.split(',').any(|name| name == "memory") => {
                Path::new("/sys/fs/cgroup/memory")
            }
            _ => continue,
        };
        let own = root.join(group.trim_start_matches('/'));
        folders.extend(own.ancestors().take_while(|it| it.starts_with(root)).map(Path::to_owned));
    }
    folders
}

/// The data directory, or the folder that it is to be made in.
pub(super) fn disk(path: &Path) -> Disk {
    let exists = path.exists();
    let there = path.ancestors().find(|it| it.exists() && !it.as_os_str().is_empty());
    let there = there.unwrap_or(Path::new("."));
    let may = access(there, Access::WRITE_OK | Access::EXEC_OK);
    let mut disk = Disk { path: path.to_owned(), exists, ..Disk::default() };
    disk.refused = match may {
        _ if !there.is_dir() => Some(format!("{} is no directory", there.display())),
        Ok(()) => None,
        Err(error) => Some(format!("{}: {}", there.display(), io::Error::from(error))),
    };
    if let Ok(system) = statvfs(there) {
        disk.free = Some(system.f_bavail.saturating_mul(system.f_frsize));
        disk.free_files = (system.f_files > 0).then_some(system.f_favail);
    }
    if let (true, Ok(folder)) = (exists, fs::metadata(path)) {
        disk.mode = folder.permissions().mode() & 0o777;
        disk.is_anothers = folder.uid() != rustix::process::geteuid().as_raw();
        for file in fs::read_dir(path).into_iter().flatten().flatten() {
            let Ok(about) = file.metadata() else { continue };
            let name = file.file_name().to_string_lossy().into_owned();
            if about.uid() != folder.uid() {
                disk.foreign_files.push(name.clone());
            }
            if about.permissions().mode() & OTHERS != 0 {
                disk.open_files.push(name);
            }
        }
    }
    disk
}

/// The operator's certificate for agents; none if it comes from elsewhere.
pub(super) fn certificate(config: &Config) -> Option<Certificate> {
    let Some(CertificateSource::Files { cert, key }) = config.tls.source() else { return None };
    let file = |path: &Path| {
        fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
    };
    let read = || {
        let (chain, secret) = (file(&cert)?, Zeroizing::new(file(&key)?));
        let chain = Chain::from_pem(&chain, &secret).map_err(|error| error.to_string())?;
        Ok(Validity {
            not_before: chain.not_before(),
            not_after: chain.not_after(),
            names: chain.names().to_vec(),
        })
    };
    let read = read();
    let key_is_open = fs::metadata(&key).is_ok_and(|it| it.permissions().mode() & EVERYBODY != 0);
    Some(Certificate { cert, key, key_is_open, read })
}

/// What makes this node one of its cluster.
pub(super) fn mesh(config: &Config, clock: &Clock) -> Mesh {
    match config.mesh.credentials() {
        None => Mesh::None,
        Some(Credentials::Secret(_, previous)) => Mesh::Secret { previous: previous.is_some() },
        Some(Credentials::Files(files)) => {
            let identity = MeshIdentity::from_files(&files, None, wall(clock));
            let identity = identity.map_err(|error| error.to_string());
            Mesh::Files(identity.map(|identity| identity.not_after()))
        }
    }
}

/// The time since 1970, as certificates are judged by.
pub(super) fn wall(clock: &Clock) -> Wall {
    let clock = clock.clone();
    Arc::new(move || Duration::from_millis(clock.wall().0))
}

/// Where the secrets are set that are.
pub(super) fn secrets(chosen: &[Chosen]) -> Vec<SecretSetting> {
    let is_secret = |it: &&Chosen| {
        settings().iter().any(|setting| setting.variable == it.variable && setting.is_secret)
    };
    let looked_at = |Chosen { variable, origin, .. }: &Chosen| {
        // `.env:3` is the third line of it; a flag and the environment are no files.
        let file = origin.split(':').next().unwrap_or_default();
        let mode = fs::metadata(file).map_or(0, |file| file.permissions().mode());
        SecretSetting { variable, origin: origin.clone(), is_open: mode & EVERYBODY != 0 }
    };
    chosen.iter().filter(is_secret).map(looked_at).collect()
}

/// How many characters a secret has, and how many different ones.
pub(super) fn strength(secret: &str) -> (usize, usize) {
    (secret.chars().count(), secret.chars().collect::<BTreeSet<_>>().len())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_system_tells_it() {
        assert_eq!(total_memory("MemTotal:       2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert_eq!(total_memory("MemTotal: lots"), None);
        assert!(memory().total.is_some(), "of this machine");
    }

    #[test]
    fn a_group_is_limited_by_those_above_it_too() {
        let two = group_folders("0::/system.slice/arc-relay.service\n");
        let expected = [
            "/sys/fs/cgroup/system.slice/arc-relay.service",
            "/sys/fs/cgroup/system.slice",
            "/sys/fs/cgroup",
        ];
        assert_eq!(two, expected.map(PathBuf::from));
        let one = group_folders("3:cpu,cpuacct:/a\n2:memory:/a\n");
        assert_eq!(one, ["/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"].map(PathBuf::from));
        assert!(group_folders("nonsense").is_empty());
    }

    #[test]
    fn a_port_that_is_taken_is_seen_and_a_free_one_is_let_go() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(tried("PORT", "HOST", address, false).tried, Err(ErrorKind::AddrInUse));
        drop(taken);
        for _ in 0..2 {
            assert_eq!(tried("PORT", "HOST", address, false).tried, Ok(()));
        }
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(tried("PORT", "HOST", address, true).tried, Err(ErrorKind::AddrInUse));
    }

    #[test]
    fn a_data_directory_is_looked_at_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let disk = super::disk(&path);
        assert!(!disk.exists && disk.refused.is_none() && disk.free > Some(0), "{disk:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::create_dir_all(&path).unwrap();
        for (name, mode) in [("closed", 0o600), ("open", 0o644)] {
            fs::write(path.join(name), "").unwrap();
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let disk = super::disk(&path);
        assert_eq!((disk.exists, disk.open_files), (true, vec!["open".to_owned()]));
        let disk = super::disk(&path.join("open"));
        assert!(disk.refused.is_some_and(|why| why.contains("no directory")));
    }

    #[test]
    fn a_secret_is_as_strong_as_it_is_varied() {
        assert_eq!(strength("aaaaaaaab"), (9, 2));
    }
}
