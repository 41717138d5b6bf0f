//! The endpoints: which call a method and a path ask for.

use hyper::Method;
use percent_encoding::percent_decode_str;

/// What is asked for; the captured parts of the path come with it, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Discovery,
    Info,
    Details,
    Listeners,
    PutHaproxy,
    GetHaproxy,
    Act,
    Delete,
    PutLvs,
    GetLvs,
    PutCertificate,
    GetCertificate,
    DeleteCertificate,
    PlugVip,
    PlugNetwork,
    PutServerCertificate,
    PutConfig,
    PutVrrp,
    ActVrrp,
    Interface,
    PutRules,
    /// Not of Octavia's: for the operator.
    Metrics,
}

/// Why there is no call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoCall {
    /// No such path.
    NotFound,
    /// The path knows other methods.
    MethodNotAllowed,
    /// `OPTIONS`: these are the methods of the path.
    Options(String),
}

struct Route {
    method: Method,
    /// Its parts; an empty one captures.
    path: &'static [&'static str],
    call: Call,
}

/// In the order of the contract. The first that fits is taken.
#[rustfmt::skip]
static ROUTES: [Route; 22] = [
    route(Method::GET, &[], Call::Discovery),
    route(Method::GET, &["1.0", "info"], Call::Info),
    route(Method::GET, &["1.0", "details"], Call::Details),
    route(Method::GET, &["1.0", "listeners"], Call::Listeners),
    route(Method::PUT, &["1.0", "loadbalancer", "", "", "haproxy"], Call::PutHaproxy),
    route(Method::GET, &["1.0", "loadbalancer", "", "haproxy"], Call::GetHaproxy),
    route(Method::PUT, &["1.0", "loadbalancer", "", ""], Call::Act),
    route(Method::DELETE, &["1.0", "listeners", ""], Call::Delete),
    route(Method::PUT, &["1.0", "listeners", "", "", "udp_listener"], Call::PutLvs),
    route(Method::GET, &["1.0", "listeners", "", "udp_listener"], Call::GetLvs),
    route(Method::PUT, &["1.0", "loadbalancer", "", "certificates", ""], Call::PutCertificate),
    route(Method::GET, &["1.0", "loadbalancer", "", "certificates", ""], Call::GetCertificate),
    route(Method::DELETE, &["1.0", "loadbalancer", "", "certificates", ""], Call::DeleteCertificate),
    route(Method::POST, &["1.0", "plug", "vip", ""], Call::PlugVip),
    route(Method::POST, &["1.0", "plug", "network"], Call::PlugNetwork),
    route(Method::PUT, &["1.0", "certificate"], Call::PutServerCertificate),
    route(Method::PUT, &["1.0", "config"], Call::PutConfig),
    route(Method::PUT, &["1.0", "vrrp", "upload"], Call::PutVrrp),
    route(Method::PUT, &["1.0", "vrrp", ""], Call::ActVrrp),
    route(Method::GET, &["1.0", "interface", ""], Call::Interface),
    route(Method::PUT, &["1.0", "interface", "", "rules"], Call::PutRules),
    route(Method::GET, &["metrics"], Call::Metrics),
];

const fn route(method: Method, path: &'static [&'static str], call: Call) -> Route {
    Route { method, path, call }
}

/// The call, and what the path captured, percent-decoded.
///
/// `//` is `/`: the driver joins the address of the amphora, which ends in a slash, with one more
/// (Octavia `rest_api_driver.py`). A slash at the end of another path is a part of its own, which no
/// endpoint has. `HEAD` is `GET`; the server leaves the body out.
pub fn find(method: &Method, path: &str) -> Result<(Call, Vec<String>), NoCall> {
    let parts: Vec<&str> = match path {
        "/" | "//" => Vec::new(),
        path => path.strip_prefix('/').unwrap_or(path).split('/').collect(),
    };
    let here = || ROUTES.iter().filter(|route| route.fits(&parts));
    let wanted = if method == Method::HEAD { &Method::GET } else { method };
    match here().find(|route| route.method == *wanted) {
        Some(route) => Ok((route.call, route.captured(&parts))),
        None if here().next().is_none() => Err(NoCall::NotFound),
        None if method == Method::OPTIONS => Err(NoCall::Options(methods(here()))),
        None => Err(NoCall::MethodNotAllowed),
    }
}

fn methods<'a>(routes: impl Iterator<Item = &'a Route>) -> String {
    let mut methods = vec!["OPTIONS"];
    for route in routes {
        methods.push(route.method.as_str());
        if route.method == Method::GET {
            methods.push("HEAD");
        }
    }
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}

impl Route {
    fn fits(&self, parts: &[&str]) -> bool {
        let mut pairs = self.path.iter().zip(parts);
        let fits = |(wanted, part): (&&str, &&str)| {
            if wanted.is_empty() { !part.is_empty() } else { wanted == part }
        };
        self.path.len() == parts.len() && pairs.all(fits)
    }

    fn captured(&self, parts: &[&str]) -> Vec<String> {
        let pairs = self.path.iter().zip(parts).filter(|(wanted, _)| wanted.is_empty());
        pairs.map(|(_, part)| percent_decode_str(part).decode_utf8_lossy().into_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let ok =
            |call, captured: &[&str]| Ok((call, captured.iter().map(|c| c.to_string()).collect()));
        let options = |methods: &str| Err(NoCall::Options(methods.to_owned()));
        let (get, put) = (Method::GET, Method::PUT);
        let rows = [
            (&get, "/", ok(Call::Discovery, &[])),
            (&get, "//", ok(Call::Discovery, &[])),
            (&get, "///", Err(NoCall::NotFound)),
            (&get, "/1.0", Err(NoCall::NotFound)),
            (&get, "/metrics", ok(Call::Metrics, &[])),
            (&put, "/metrics", Err(NoCall::MethodNotAllowed)),
            (&get, "/1.0/metrics", Err(NoCall::NotFound)),
            (&get, "/1.0/", Err(NoCall::NotFound)),
            (&get, "/1.0/info", ok(Call::Info, &[])),
            (&get, "/0.5/info", Err(NoCall::NotFound)),
            (&get, "/1.0/info/", Err(NoCall::NotFound)),
            (&get, "/1.0//info", Err(NoCall::NotFound)),
            (&Method::HEAD, "/1.0/info", ok(Call::Info, &[])),
            (&Method::POST, "/1.0/info", Err(NoCall::MethodNotAllowed)),
            (&Method::OPTIONS, "/1.0/info", options("GET, HEAD, OPTIONS")),
            (&Method::OPTIONS, "/1.0/interface/x/rules", options("OPTIONS, PUT")),
            (&Method::OPTIONS, "/1.0/nope", Err(NoCall::NotFound)),
            (&get, "/1.0/details", ok(Call::Details, &[])),
            (&get, "/1.0/listeners", ok(Call::Listeners, &[])),
            (&put, "/1.0/loadbalancer/a/b/haproxy", ok(Call::PutHaproxy, &["a", "b"])),
            (&get, "/1.0/loadbalancer/b/haproxy", ok(Call::GetHaproxy, &["b"])),
            (&put, "/1.0/loadbalancer/b/haproxy", ok(Call::Act, &["b", "haproxy"])),
            (&put, "/1.0/loadbalancer/b/START", ok(Call::Act, &["b", "START"])),
            (&put, "/1.0/loadbalancer//START", Err(NoCall::NotFound)),
            (&Method::DELETE, "/1.0/listeners/b", ok(Call::Delete, &["b"])),
            (&put, "/1.0/listeners/a/b/udp_listener", ok(Call::PutLvs, &["a", "b"])),
            (&get, "/1.0/listeners/b/udp_listener", ok(Call::GetLvs, &["b"])),
            (
                &put,
                "/1.0/loadbalancer/b/certificates/c.pem",
                ok(Call::PutCertificate, &["b", "c.pem"]),
            ),
            (
                &get,
                "/1.0/loadbalancer/b/certificates/c.pem",
                ok(Call::GetCertificate, &["b", "c.pem"]),
            ),
            (
                &Method::DELETE,
                "/1.0/loadbalancer/b/certificates/c",
                ok(Call::DeleteCertificate, &["b", "c"]),
            ),
            (
                &put,
                "/1.0/loadbalancer/b/certificates/..%2f..",
                ok(Call::PutCertificate, &["b", "../.."]),
            ),
            (&Method::POST, "/1.0/plug/vip/2001:db8::1", ok(Call::PlugVip, &["2001:db8::1"])),
            (&Method::POST, "/1.0/plug/vip/2001%3Adb8%3a%3A1", ok(Call::PlugVip, &["2001:db8::1"])),
            (&Method::POST, "/1.0/plug/network", ok(Call::PlugNetwork, &[])),
            (&put, "/1.0/certificate", ok(Call::PutServerCertificate, &[])),
            (&put, "/1.0/config", ok(Call::PutConfig, &[])),
            (&put, "/1.0/vrrp/upload", ok(Call::PutVrrp, &[])),
            (&put, "/1.0/vrrp/start", ok(Call::ActVrrp, &["start"])),
            (&get, "/1.0/interface/fe80::1%25eth0", ok(Call::Interface, &["fe80::1%eth0"])),
            (&put, "/1.0/interface/10.0.0.1/rules", ok(Call::PutRules, &["10.0.0.1"])),
        ];
        for (method, path, want) in rows {
            assert_eq!(find(method, path), want, "{method} {path}");
        }
    }
}
