//! Answers as this machine is set up: `/etc/hosts`, `localhost`, then DNS as `/etc/resolv.conf` says.

use std::{
    cell::RefCell,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::op::ResponseCode,
    system_conf::parse_resolv_conf,
};

use super::{Found, Lookup, hosts_file};

/// How long what a file says holds before the file is read again.
const FILE_TTL: Duration = Duration::from_secs(5);

/// Where the machine's settings are.
#[derive(Debug)]
pub(super) struct System {
    hosts: PathBuf,
    resolv_conf: PathBuf,
    made: RefCell<Option<Made>>,
    /// Instead of the port that servers have by the book.
    port: Option<u16>,
}

#[derive(Clone, Debug)]
struct Made {
    resolver: Rc<TokioResolver>,
    /// With a dot at the end.
    search: Vec<String>,
    /// Of which state of the file.
    of: Option<SystemTime>,
}

impl Default for System {
    fn default() -> Self {
        Self { hosts: "/etc/hosts".into(), resolv_conf: "/etc/resolv.conf".into(), made: RefCell::default(), port: None }
    }
}

impl Lookup for System {
    async fn lookup(&self, name: &str) -> Found {
        let in_file = std::fs::read_to_string(&self.hosts).map(|file| hosts_file::lookup(&file, name)).unwrap_or_default();
        if !in_file.is_empty() {
            return Found::Addresses { addresses: in_file, ttl: FILE_TTL };
        }
        if is_localhost(name) {
            return Found::Addresses { addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], ttl: FILE_TTL };
        }
        let made = match self.made() {
            Ok(made) => made,
            Err(reason) => return Found::Failed(reason),
        };
        let mut failure = None;
        for candidate in made.candidates(name) {
            match made.resolver.lookup_ip(&candidate).await {
                Ok(answer) => {
                    let ttl = answer.valid_until().saturating_duration_since(Instant::now());
                    return Found::Addresses { addresses: answer.iter().collect(), ttl };
                }
                Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords {
                    response_code: ResponseCode::NoError | ResponseCode::NXDomain,
                    ..
                }))) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Found::Nothing, |error| Found::Failed(error.to_string()))
    }
}

impl Made {
    /// The full names that a name may stand for, in the order of asking. One with a dot is asked for as it stands first, whatever
    /// `ndots` says: a pod's `ndots:5` makes six questions of one for names outside the cluster. One without goes through the
    /// search list first, as `http://nas:8080` needs it.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let own = format!("{name}.");
        let mut all: Vec<String> = self.search.iter().map(|suffix| format!("{name}.{suffix}")).collect();
        all.insert(if name.contains('.') { 0 } else { all.len() }, own);
        all
    }
}

impl System {
    /// The resolver for the present state of the file: a laptop changes networks.
    fn made(&self) -> Result<Made, String> {
        let of = std::fs::metadata(&self.resolv_conf).and_then(|metadata| metadata.modified()).ok();
        let mut made = self.made.borrow_mut();
        if let Some(made) = made.as_ref().filter(|made| made.of == of) {
            return Ok(made.clone());
        }
        let (mut config, options) = read(&self.resolv_conf)?;
        if let Some(port) = self.port {
            config = with_port(config, port);
        }
        // resolv.conf(5): without a search list it is the domain.
        let search = if config.search().is_empty() {
            config.domain().into_iter().collect()
        } else {
            config.search().iter().collect::<Vec<_>>()
        };
        let search = search.into_iter().map(|suffix| format!("{}.", suffix.to_string().trim_end_matches('.')));
        let search = search.filter(|suffix| suffix != ".").collect();
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build();
        let resolver = Rc::new(resolver.map_err(|error| error.to_string())?);
        Ok(made.insert(Made { resolver, search, of }).clone())
    }
}

fn read(path: &Path) -> Result<(ResolverConfig, ResolverOpts), String> {
    let file = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (config, mut options) = parse_resolv_conf(file).map_err(|error| format!("{}: {error}", path.display()))?;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Both are done here, where a change is seen.
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 0;
    Ok((config, options))
}

fn with_port(config: ResolverConfig, port: u16) -> ResolverConfig {
    let (domain, search, mut servers) = config.into_parts();
    for connection in servers.iter_mut().flat_map(|server| &mut server.connections) {
        connection.port = port;
    }
    ResolverConfig::from_parts(domain, search, servers)
}

/// RFC 6761 §6.3.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use hickory_resolver::proto::{
        op::{Message, OpCode},
        rr::{RData, Record, RecordType},
    };
    use tokio::net::UdpSocket;

    use super::*;

    /// A name server for `good.example` (one address of each family, TTL 77), `broken.example` (SERVFAIL) and
    /// `short.search.example`; there is nothing else.
    async fn name_server() -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
                let request = Message::from_vec(&buffer[..length]).unwrap();
                let query = request.queries[0].clone();
                let mut response = Message::response(request.metadata.id, OpCode::Query);
                response.metadata.recursion_desired = true;
                response.metadata.recursion_available = true;
                let answer = |address: &str| {
                    let address: IpAddr = address.parse().unwrap();
                    Record::from_rdata(query.name().clone(), 77, RData::from(address))
                };
                match (query.name().to_string().to_ascii_lowercase().as_str(), query.query_type()) {
                    ("good.example.", RecordType::A) => drop(response.add_answer(answer("192.0.2.1"))),
                    ("good.example.", RecordType::AAAA) => drop(response.add_answer(answer("2001:db8::1"))),
                    ("short.search.example.", RecordType::A) => drop(response.add_answer(answer("192.0.2.2"))),
                    ("short.search.example.", _) => {}
                    ("broken.example.", _) => response.metadata.response_code = ResponseCode::ServFail,
                    _ => response.metadata.response_code = ResponseCode::NXDomain,
                }
                response.add_query(query);
                socket.send_to(&response.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        (address, task)
    }

    fn system(folder: &Path, port: u16) -> System {
        std::fs::write(folder.join("hosts"), "192.0.2.9 filed.example\n").unwrap();
        std::fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.1\nsearch search.example\noptions ndots:5 attempts:1\n")
            .unwrap();
        System { hosts: folder.join("hosts"), resolv_conf: folder.join("resolv.conf"), made: RefCell::default(), port: Some(port) }
    }

    #[tokio::test]
    async fn files_come_before_dns_and_dns_tells_the_ttl() {
        let folder = tempfile::tempdir().unwrap();
        let (address, server) = name_server().await;
        let system = system(folder.path(), address.port());
        for (name, expected) in [
            ("filed.example", &["192.0.2.9"][..]),
            ("localhost", &["127.0.0.1", "::1"]),
            ("app.localhost.", &["127.0.0.1", "::1"]),
            ("good.example", &["192.0.2.1", "2001:db8::1"]),
            ("short", &["192.0.2.2"]),
        ] {
            let Found::Addresses { mut addresses, ttl } = system.lookup(name).await else { panic!("{name}") };
            addresses.sort();
            assert_eq!(addresses, expected.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect::<Vec<_>>(), "{name}");
            if name == "good.example" {
                assert!(ttl <= Duration::from_secs(77) && ttl > Duration::from_secs(70), "{ttl:?}");
            }
        }
        server.abort();
    }

    #[tokio::test]
    async fn no_such_name_is_told_apart_from_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let (address, server) = name_server().await;
        let system = system(folder.path(), address.port());
        assert_eq!(system.lookup("missing.example").await, Found::Nothing);
        assert!(
            matches!(system.lookup("broken.example").await, Found::Failed(_)),
            "also if there is no such name in the search list"
        );
        server.abort();
    }

    #[tokio::test]
    async fn changed_files_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (address, server) = name_server().await;
        let system = system(folder.path(), address.port());
        std::fs::write(folder.path().join("hosts"), "192.0.2.10 filed.example\n").unwrap();
        let expected = Found::Addresses { addresses: vec!["192.0.2.10".parse().unwrap()], ttl: FILE_TTL };
        assert_eq!(system.lookup("filed.example").await, expected);
        assert!(matches!(system.lookup("short").await, Found::Addresses { .. }));
        let file = folder.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 127.0.0.1\nsearch other.example\noptions attempts:1\n").unwrap();
        let newer = SystemTime::now() + Duration::from_secs(10);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(newer).unwrap();
        assert_eq!(system.lookup("short").await, Found::Nothing);
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(system.lookup("good.example").await, Found::Failed(_)));
        server.abort();
    }
}
