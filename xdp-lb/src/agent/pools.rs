//! How pools and their members stand, in the words that the health manager knows.

use std::collections::BTreeMap;

use agent_api::heartbeat::message::{MemberStatus, Pool, PoolStatus};
use agent_api::understood::{self, Protocol};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as Unknown;

use super::message::Known;
use crate::haproxy_stats::Row;
use crate::health::{Standing, Standings};

/// A pool as a listener uses it. None where it is disabled, or HAProxy serves the listener and does not have
/// it.
pub fn pool(
    pool: &understood::Pool,
    listener: &understood::Listener,
    known: &Known<'_>,
) -> Option<Pool> {
    if known.by_packets(&listener.id) {
        of_packets(pool, listener.protocol, known.standings)
    } else {
        of_haproxy(&pool.id, &listener.id, known.rows)
    }
}

/// In the words of whoever would serve it in a stock amphora: HAProxy, or keepalived and IPVS as the
/// stock agent reads them (`keepalivedlvs_query.py`, `get_lvs_listener_pool_status`).
fn of_packets(pool: &understood::Pool, protocol: Protocol, standings: &Standings) -> Option<Pool> {
    let words: fn(&understood::Pool, &Standings) -> Pool = match protocol {
        Protocol::Udp | Protocol::Sctp => in_words_of_keepalived,
        Protocol::Tcp | Protocol::Http | Protocol::TerminatedHttps | Protocol::Prometheus => {
            in_words_of_haproxy
        }
    };
    pool.enabled.then(|| words(pool, standings))
}

/// Down where it has members and none may be used: a backup may, one of weight 0 may not.
fn in_words_of_haproxy(pool: &understood::Pool, standings: &Standings) -> Pool {
    let members = statuses(pool, |member| match standing(pool, member, standings) {
        _ if pool.monitor.is_none() => MemberStatus::NoCheck,
        None => MemberStatus::Restarting,
        Some(standing) => match standing.status() {
            MemberStatus::Up(None) if weight(member) == 0 => MemberStatus::Drain,
            status => status,
        },
    });
    let usable = |member: &&understood::Member| {
        let is_down = standing(pool, member, standings).is_some_and(|it| !it.member.is_up());
        member.enabled && weight(member) > 0 && !is_down
    };
    let is_up = pool.members.is_empty() || pool.members.iter().any(|member| usable(&member));
    Pool { status: if is_up { PoolStatus::Up } else { PoolStatus::Down }, members }
}

/// Down only where members are probed and IPVS has none left; of weight 0 it has them too.
fn in_words_of_keepalived(pool: &understood::Pool, standings: &Standings) -> Pool {
    let is_down = |member: &understood::Member| {
        standing(pool, member, standings).is_some_and(|it| !it.member.is_up())
    };
    let members = statuses(pool, |member| match &pool.monitor {
        Some(_) if standing(pool, member, standings).is_none() => MemberStatus::Restarting,
        Some(_) if is_down(member) => MemberStatus::Down(None),
        _ if weight(member) == 0 => MemberStatus::Drain,
        Some(_) => MemberStatus::Up(None),
        None => MemberStatus::NoCheck,
    });
    let left = pool.members.iter().any(|member| member.enabled && !is_down(member));
    let is_up = pool.monitor.is_none() || pool.members.is_empty() || left;
    Pool { status: if is_up { PoolStatus::Up } else { PoolStatus::Down }, members }
}

/// All members, of whom the disabled need no asking.
fn statuses(
    pool: &understood::Pool,
    status: impl Fn(&understood::Member) -> MemberStatus,
) -> BTreeMap<String, MemberStatus> {
    let status =
        |it: &understood::Member| if it.enabled { status(it) } else { MemberStatus::Maint };
    pool.members.iter().map(|member| (member.id.clone(), status(member))).collect()
}

/// None where it is not probed, or nobody has begun to: then the health manager keeps what it has.
fn standing(
    pool: &understood::Pool,
    member: &understood::Member,
    standings: &Standings,
) -> Option<Standing> {
    pool.monitor.as_ref()?;
    standings.get(&(pool.id.clone(), member.id.clone())).copied()
}

fn weight(member: &understood::Member) -> u16 {
    member.server.as_ref().map_or(0, |server| server.weight)
}

/// None where HAProxy does not have it.
fn of_haproxy(pool: &str, listener: &str, rows: &[Row]) -> Option<Pool> {
    let proxy = format!("{pool}:{listener}");
    let rows = || rows.iter().filter(|row| row.proxy == proxy && !row.leaving);
    let backend = rows().find(|row| row.server == "BACKEND")?;
    let status = if backend.status == "UP" { PoolStatus::Up } else { PoolStatus::Down };
    let servers = rows().filter(|row| row.server != "BACKEND");
    let members = servers.filter_map(|row| Some((row.server.clone(), member_status(row)?)));
    Some(Pool { status, members: members.collect() })
}

/// As the stock agent says it: of weight 0 and well is `DRAIN`. None for words that nobody knows.
fn member_status(row: &Row) -> Option<MemberStatus> {
    let text = if row.status.starts_with("MAINT") { "MAINT" } else { &row.status };
    let deserializer = IntoDeserializer::<Unknown>::into_deserializer(text);
    match MemberStatus::deserialize(deserializer).ok()? {
        MemberStatus::Up(None) if row.weight == 0 => Some(MemberStatus::Drain),
        status => Some(status),
    }
}

#[cfg(test)]
pub mod tests {
    use agent_api::heartbeat::message::Count;
    use agent_api::understood::Server;
    use agent_api::{Algorithm, Monitor, OnMarkedDown, Probe};

    use super::*;
    use crate::haproxy_stats::Worker;
    use crate::health::{self, Thresholds};

    pub fn member(id: &str, weight: u16) -> understood::Member {
        let address = "10.0.0.1".parse().unwrap();
        let server = Server { address, port: 80, weight, backup: false, probed_at: None };
        understood::Member { id: id.to_owned(), enabled: true, server: Some(server) }
    }

    fn disabled(id: &str) -> understood::Member {
        understood::Member { id: id.to_owned(), enabled: false, server: None }
    }

    pub fn pool(members: Vec<understood::Member>) -> understood::Pool {
        understood::Pool {
            id: "p".to_owned(),
            algorithm: Algorithm::RoundRobin,
            persistence: None,
            monitor: None,
            enabled: true,
            members,
        }
    }

    pub fn row(proxy: &str, server: &str, status: &str, weight: u32) -> Row {
        Row {
            worker: Worker { pid: 12, started_s: 1 },
            leaving: false,
            proxy: proxy.to_owned(),
            server: server.to_owned(),
            status: status.to_owned(),
            weight,
            sessions: 3,
            sessions_total: 7,
            bytes_in: 100,
            bytes_out: 200,
            request_errors: 1,
        }
    }

    #[test]
    fn edges_23_24_25_26_59_pools_of_the_packet_path() {
        use MemberStatus::{Drain, Maint, NoCheck, Restarting};
        use PoolStatus::{Down, Up};
        use health::Member as Is;
        let up = |left: u16| MemberStatus::Up((left < 3).then_some(Count { done: left, of: 3 }));
        let down = |done: u16| MemberStatus::Down((done > 0).then_some(Count { done, of: 2 }));
        let (well, begun, failing) =
            (Is::Up { failed: 0 }, Is::Up { failed: 2 }, Is::Up { failed: 1 });
        let (ill, rising) = (Is::Down { passed: 0 }, Is::Down { passed: 1 });
        let (ups, downs) = (|| MemberStatus::Up(None), || MemberStatus::Down(None));
        let off = || disabled("m");
        // A disabled member of HAProxy's has its line still.
        let off_with_server = || understood::Member { enabled: false, ..member("m", 1) };
        let backup = || {
            let mut member = member("m", 1);
            member.server.iter_mut().for_each(|server| server.backup = true);
            member
        };
        let weighs = |weight| member("m", weight);
        type Members = Vec<(understood::Member, Option<Is>)>;
        type Said = (PoolStatus, Vec<MemberStatus>);
        struct Row(&'static str, bool, Members, Said, Said);
        #[rustfmt::skip]
        let rows = [
            Row("no member", false, vec![], (Up, vec![]), (Up, vec![])),
            Row("no member, probed", true, vec![], (Up, vec![]), (Up, vec![])),
            Row("not probed", false, vec![(weighs(1), None)],
                (Up, vec![NoCheck]), (Up, vec![NoCheck])),
            Row("not probed, and what it was while it was", false, vec![(weighs(1), Some(ill))],
                (Up, vec![NoCheck]), (Up, vec![NoCheck])),
            Row("not probed, of weight 0", false, vec![(weighs(0), None)],
                (Down, vec![NoCheck]), (Up, vec![Drain])),
            Row("not probed, disabled", false, vec![(off(), None)],
                (Down, vec![Maint]), (Up, vec![Maint])),
            Row("not probed, disabled with its server", false, vec![(off_with_server(), None)],
                (Down, vec![Maint]), (Up, vec![Maint])),
            Row("not probed, one of each", false,
                vec![(weighs(1), None), (weighs(0), None), (off(), None)],
                (Up, vec![NoCheck, NoCheck, Maint]), (Up, vec![NoCheck, Drain, Maint])),
            Row("not begun", true, vec![(weighs(1), None)],
                (Up, vec![Restarting]), (Up, vec![Restarting])),
            Row("not begun, of weight 0", true, vec![(weighs(0), None)],
                (Down, vec![Restarting]), (Up, vec![Restarting])),
            Row("begun", true, vec![(weighs(1), Some(begun))],
                (Up, vec![up(1)]), (Up, vec![ups()])),
            Row("begun, of weight 0", true, vec![(weighs(0), Some(begun))],
                (Down, vec![up(1)]), (Up, vec![Drain])),
            Row("well", true, vec![(weighs(1), Some(well))],
                (Up, vec![ups()]), (Up, vec![ups()])),
            Row("well, of weight 0", true, vec![(weighs(0), Some(well))],
                (Down, vec![Drain]), (Up, vec![Drain])),
            Row("well, a backup", true, vec![(backup(), Some(well))],
                (Up, vec![ups()]), (Up, vec![ups()])),
            Row("failing", true, vec![(weighs(1), Some(failing))],
                (Up, vec![up(2)]), (Up, vec![ups()])),
            Row("failing, of weight 0", true, vec![(weighs(0), Some(failing))],
                (Down, vec![up(2)]), (Up, vec![Drain])),
            Row("ill", true, vec![(weighs(1), Some(ill))],
                (Down, vec![downs()]), (Down, vec![downs()])),
            Row("ill, of weight 0", true, vec![(weighs(0), Some(ill))],
                (Down, vec![downs()]), (Down, vec![downs()])),
            Row("ill, a backup", true, vec![(backup(), Some(ill))],
                (Down, vec![downs()]), (Down, vec![downs()])),
            Row("passing again", true, vec![(weighs(1), Some(rising))],
                (Down, vec![down(1)]), (Down, vec![downs()])),
            Row("disabled", true, vec![(off(), None)],
                (Down, vec![Maint]), (Down, vec![Maint])),
            Row("disabled, and ill while it was not", true, vec![(off(), Some(ill))],
                (Down, vec![Maint]), (Down, vec![Maint])),
            Row("one ill of two", true, vec![(weighs(1), Some(ill)), (weighs(1), Some(well))],
                (Up, vec![downs(), ups()]), (Up, vec![downs(), ups()])),
            Row("the backup alone is well", true,
                vec![(weighs(1), Some(ill)), (backup(), Some(well))],
                (Up, vec![downs(), ups()]), (Up, vec![downs(), ups()])),
            Row("one of weight 0 alone is well", true,
                vec![(weighs(1), Some(ill)), (weighs(0), Some(well)), (off(), None)],
                (Down, vec![downs(), Drain, Maint]), (Up, vec![downs(), Drain, Maint])),
        ];
        for Row(name, is_probed, members, by_haproxy, by_keepalived) in rows {
            let (delay_s, timeout_s, rise, fall) = (5, 1, 2, 3);
            let (probe, on_marked_down) = (Probe::Tcp, OnMarkedDown::Keep);
            let monitor = Monitor { probe, delay_s, timeout_s, rise, fall, on_marked_down };
            let mut pool = pool(Vec::new());
            pool.monitor = is_probed.then_some(monitor);
            let mut standings = Standings::new();
            for (at, (member, is)) in members.into_iter().enumerate() {
                let id = format!("m{at}");
                let thresholds = Thresholds { rise, fall };
                standings.extend(
                    is.map(|member| {
                        (("p".to_owned(), id.clone()), Standing { member, thresholds })
                    }),
                );
                pool.members.push(understood::Member { id, ..member });
            }
            for (protocol, want) in [
                (Protocol::Tcp, by_haproxy),
                (Protocol::Udp, by_keepalived.clone()),
                (Protocol::Sctp, by_keepalived),
            ] {
                let got = of_packets(&pool, protocol, &standings).expect("it is enabled");
                let got = (got.status, got.members.into_values().collect::<Vec<_>>());
                assert_eq!(got, want, "{name}, {protocol}");
                let disabled = understood::Pool { enabled: false, ..pool.clone() };
                assert_eq!(of_packets(&disabled, protocol, &standings), None, "{name}");
            }
        }
    }

    /// What HAProxy, and the stock agent of keepalived, made of members that stood like this.
    #[test]
    fn edges_24_25_27_30_recorded_pools() {
        use health::Member::{Down, Up};
        type Stands = Option<health::Member>;
        let thresholds = Thresholds { rise: 2, fall: 3 };
        let of_tcp = [(1, false), (1, false), (0, false), (1, false), (1, true)];
        let ids = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let tcp_ids =
            ids("4e2ce52c-8e22-53a8-a200-e35e124b1fb7 10797f0c-a06a-5045-80bb-dc49fa986a02 \
             b3c2200a-fb20-55a5-8c88-b33e02bd7ed1 7db97696-1d41-5269-b69d-30cc64509f06 \
             4b1bf36e-2466-5805-aa07-5ca2ad9d33cf");
        let vector = |name: &str| -> serde_json::Value {
            let vectors = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            let path = vectors.join("../tests/vectors/heartbeat_build").join(name);
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
        };
        let tcp_pool = || {
            let (probe, on_marked_down) = (Probe::Tcp, OnMarkedDown::Keep);
            let (delay_s, timeout_s, rise, fall) = (1, 4, 2, 3);
            let monitor = Monitor { probe, delay_s, timeout_s, rise, fall, on_marked_down };
            let members =
                tcp_ids.iter().zip(of_tcp).enumerate().map(|(at, (id, (weight, backup)))| {
                    let mut member = understood::Member { enabled: at != 3, ..member(id, weight) };
                    member.server.iter_mut().for_each(|server| server.backup = backup);
                    member
                });
            let id = "3aaa149b-3584-58ce-beeb-3e03e989e425".to_owned();
            understood::Pool { id, monitor: Some(monitor), ..pool(members.collect()) }
        };
        let udp_pool = || {
            let text = vector("05_udp_listener.json")["lvs_conf"].as_str().unwrap().to_owned();
            let config = agent_api::lvs::parse(&text, &agent_api::Paths::default()).unwrap();
            config.listener().unwrap().pools.remove(0)
        };
        // The first to be checked was well already when it was looked at.
        let just_started =
            [Some(Up { failed: 0 }), Some(Up { failed: 2 }), Some(Up { failed: 2 }), None];
        let tcp_later =
            [Some(Up { failed: 0 }), Some(Down { passed: 0 }), Some(Up { failed: 0 }), None];
        let rows: [(&str, understood::Pool, Protocol, Vec<Stands>); 4] = [
            (
                "01_just_started.json",
                tcp_pool(),
                Protocol::Tcp,
                [&just_started[..], &[Some(Up { failed: 2 })]].concat(),
            ),
            (
                "02_traffic.json",
                tcp_pool(),
                Protocol::Tcp,
                [&tcp_later[..], &[Some(Up { failed: 0 })]].concat(),
            ),
            (
                "05_udp_listener.json",
                udp_pool(),
                Protocol::Udp,
                vec![
                    Some(Up { failed: 0 }),
                    Some(Up { failed: 0 }),
                    None,
                    Some(Down { passed: 0 }),
                ],
            ),
            (
                "06_udp_config_newer_than_checker.json",
                udp_pool(),
                Protocol::Udp,
                vec![Some(Up { failed: 0 }), Some(Up { failed: 0 }), None, None],
            ),
        ];
        for (name, pool, protocol, stands) in rows {
            let members = pool.members.iter().zip(stands);
            let standings = members.filter_map(|(member, stands)| {
                let standing = Standing { member: stands?, thresholds };
                Some(((pool.id.clone(), member.id.clone()), standing))
            });
            let said = of_packets(&pool, protocol, &standings.collect());
            let recorded = vector(name)["message"]["pools"].as_object().unwrap().clone();
            let recorded = recorded.into_iter().find(|(key, _)| key.starts_with(&pool.id));
            assert_eq!(serde_json::to_value(said).unwrap(), recorded.unwrap().1, "{name}");
        }
    }

    #[test]
    fn edges_22_24_26_pools_of_haproxy() {
        use MemberStatus::{Drain, Maint, NoCheck, Up};
        let count = |done, of| Some(Count { done, of });
        let rows = [
            ("UP", 1, Some(Up(None))),
            ("UP 1/3", 1, Some(Up(count(1, 3)))),
            ("UP", 0, Some(Drain)),
            ("DRAIN", 0, Some(Drain)),
            ("no check", 0, Some(NoCheck)),
            ("no check", 1, Some(NoCheck)),
            ("DOWN", 0, Some(MemberStatus::Down(None))),
            ("DOWN 1/2", 1, Some(MemberStatus::Down(count(1, 2)))),
            ("MAINT", 1, Some(Maint)),
            ("MAINT (via a/b)", 1, Some(Maint)),
            ("NOLB", 1, None),
            ("", 1, None),
        ];
        for (status, weight, want) in rows {
            assert_eq!(member_status(&row("p:l", "m", status, weight)), want, "{status} {weight}");
        }
        let shown = [
            row("p:l", "m", "UP", 1),
            row("p:l", "BACKEND", "UP", 1),
            row("p:other", "m", "DOWN", 1),
            row("p:other", "BACKEND", "DOWN", 0),
        ];
        let pool = |status, member| Pool { status, members: [("m".to_owned(), member)].into() };
        assert_eq!(of_haproxy("p", "l", &shown), Some(pool(PoolStatus::Up, Up(None))));
        let down = pool(PoolStatus::Down, MemberStatus::Down(None));
        assert_eq!(of_haproxy("p", "other", &shown), Some(down));
        assert_eq!(of_haproxy("p", "none", &shown), None);
    }
}
