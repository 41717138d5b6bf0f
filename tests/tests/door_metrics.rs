//! HAProxy's metrics by Octavia's names, as the stock amphora's own proxy has them.

use std::collections::BTreeSet;

use xdp_lb::agent::metrics::exposition::Exposition;
use xdp_lb::agent::metrics::names;
use xdp_lb_tests::octavia::fed;

/// What the exporter of HAProxy 2.6 said, of all kinds of listeners.
const EXPORTED: &str = include_str!("../vectors/prometheus/haproxy-2.6.txt");

/// What stock reads of its machine, not of HAProxy.
const OF_THE_MACHINE: [&str; 2] = ["octavia_loadbalancer_cpu", "octavia_loadbalancer_memory"];

#[test]
fn every_series_of_stock_is_ours_with_its_value() {
    let stock = fed("19.0.0", "metrics.py", EXPORTED.to_owned());
    let mut taken = Exposition::default();
    names::take(EXPORTED, &|_| false, &mut taken);
    let ours = taken.to_string();
    let series = |text: &str, machine: bool| {
        let is_machine = |line: &str| OF_THE_MACHINE.iter().any(|name| line.contains(name));
        let lines = text.lines().filter(|line| !line.starts_with("# HELP"));
        let lines = lines.filter(|line| machine || !is_machine(line));
        lines.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let (stock, ours) = (series(&stock, false), series(&ours, true));
    assert!(stock.len() > 700, "{} series", stock.len());
    assert_eq!(stock.difference(&ours).collect::<Vec<_>>(), Vec::<&String>::new(), "not ours");
    // Of a family without samples stock has the type alone.
    assert_eq!(ours.difference(&stock).collect::<Vec<_>>(), Vec::<&String>::new(), "not stock's");
}
