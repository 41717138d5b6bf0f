//! Who serves a listener: the packet path, or HAProxy beside it.
//!
//! The packet path carries what is forwarded as it is: TCP, HTTPS that nobody decrypts, UDP and SCTP.

use crate::understood::{Engine, Layer7, Listener, Protocol};

/// What the default pool wants that a packet cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultPool<'a> {
    pub id: &'a str,
    /// HAProxy makes requests of the stream, and balances each.
    pub speaks_http: bool,
    pub proxy_protocol: bool,
    pub tls: bool,
}

/// For a listener that is whole but for its engine.
///
/// `rules`: whether it has policies of layer 7.
pub fn engine(listener: &Listener, rules: bool, default: Option<DefaultPool<'_>>) -> Engine {
    match listener.protocol {
        Protocol::Udp | Protocol::Sctp => return Engine::Xdp,
        Protocol::Prometheus => return Engine::Haproxy(Layer7::Metrics),
        Protocol::TerminatedHttps => return Engine::Haproxy(Layer7::TerminatesTls),
        Protocol::Http => return Engine::Haproxy(Layer7::Http),
        Protocol::Tcp if rules => return Engine::Haproxy(Layer7::Rules),
        Protocol::Tcp => {}
    }
    let Some(DefaultPool { id, speaks_http, proxy_protocol, tls }) = default else {
        return Engine::Haproxy(Layer7::NoPool);
    };
    let pool = id.to_owned();
    if speaks_http {
        return Engine::Haproxy(Layer7::HttpPool { pool });
    }
    if proxy_protocol {
        return Engine::Haproxy(Layer7::ProxyProtocol { pool });
    }
    if tls {
        return Engine::Haproxy(Layer7::TlsPool { pool });
    }
    match lost_family(listener).or_else(|| unfit(listener)) {
        Some(why) => Engine::Haproxy(why),
        None => Engine::Xdp,
    }
}

/// A VIP whose clients would find no member, though there are some. Members of another family than any
/// VIP's do not count beside those that are of it.
fn lost_family(listener: &Listener) -> Option<Layer7> {
    let pool = listener.pools.first()?;
    let enabled = pool.members.iter().filter(|member| member.enabled);
    let families: Vec<bool> =
        enabled.filter_map(|member| Some(member.server.as_ref()?.address.is_ipv4())).collect();
    let lost = |vip: &&std::net::IpAddr| !families.contains(&vip.is_ipv4());
    let vip = listener.vips.iter().find(lost).filter(|_| !families.is_empty())?;
    Some(Layer7::OtherFamily { vip: *vip, pool: pool.id.clone() })
}

/// What the packet path would not take of it.
fn unfit(listener: &Listener) -> Option<Layer7> {
    let invalid = listener.alone().validate().err()?;
    Some(Layer7::Unfit { fault: invalid.fault })
}
