//! From HAProxy's names to Octavia's (`octavia/cmd/prometheus_proxy.py`): the families it shows, and no
//! others.

use super::exposition::{Exposition, Kind};

/// One of HAProxy's scopes: how its families begin, what that becomes, which of them are shown, and what
/// their labels become.
struct Scope {
    from: &'static str,
    to: &'static str,
    shown: &'static str,
    labels: &'static [(&'static str, &'static str)],
}

#[rustfmt::skip]
static SCOPES: [Scope; 5] = [
    Scope {
        from: "haproxy_process_pool_",
        to: "octavia_memory_pool_",
        shown: "allocated_bytes failures_total used_bytes",
        labels: &[],
    },
    Scope {
        from: "haproxy_process_",
        to: "octavia_loadbalancer_",
        shown: "\
            connections_total current_backend_ssl_key_rate current_connection_rate \
            current_connections current_frontend_ssl_key_rate current_session_rate \
            current_ssl_connections current_ssl_rate dropped_logs_total frontend_ssl_reuse \
            http_comp_bytes_in_total http_comp_bytes_out_total limit_connection_rate \
            limit_http_comp limit_session_rate limit_ssl_rate listeners max_backend_ssl_key_rate \
            max_connection_rate max_connections max_frontend_ssl_key_rate max_session_rate \
            max_ssl_connections max_ssl_rate requests_total ssl_cache_lookups_total \
            ssl_cache_misses_total ssl_connections_total",
        labels: &[],
    },
    Scope {
        from: "haproxy_frontend_",
        to: "octavia_listener_",
        shown: "\
            bytes_in_total bytes_out_total connections_rate_max connections_total \
            current_sessions denied_connections_total denied_sessions_total \
            failed_header_rewriting_total http_cache_hits_total http_cache_lookups_total \
            http_comp_bytes_bypassed_total http_comp_bytes_in_total http_comp_bytes_out_total \
            http_comp_responses_total http_requests_rate_max http_requests_total \
            http_responses_total intercepted_requests_total limit_session_rate limit_sessions \
            max_session_rate max_sessions request_errors_total requests_denied_total \
            responses_denied_total sessions_total status",
        labels: &[("proxy", "listener")],
    },
    Scope {
        from: "haproxy_backend_",
        to: "octavia_pool_",
        shown: "\
            active_servers backup_servers bytes_in_total bytes_out_total \
            check_last_change_seconds check_up_down_total client_aborts_total \
            connect_time_average_seconds connection_attempts_total connection_errors_total \
            connection_reuses_total current_queue current_sessions downtime_seconds_total \
            failed_header_rewriting_total http_cache_hits_total http_cache_lookups_total \
            http_comp_bytes_bypassed_total http_comp_bytes_in_total http_comp_bytes_out_total \
            http_comp_responses_total http_requests_total http_responses_total \
            last_session_seconds limit_sessions loadbalanced_total max_connect_time_seconds \
            max_queue max_queue_time_seconds max_response_time_seconds max_session_rate \
            max_sessions max_total_time_seconds queue_time_average_seconds \
            redispatch_warnings_total requests_denied_total response_errors_total \
            response_time_average_seconds responses_denied_total retry_warnings_total \
            server_aborts_total sessions_total status total_time_average_seconds",
        labels: &[("proxy", "pool")],
    },
    Scope {
        from: "haproxy_server_",
        to: "octavia_member_",
        shown: "\
            bytes_in_total bytes_out_total check_failures_total check_last_change_seconds \
            check_up_down_total client_aborts_total connect_time_average_seconds \
            connection_attempts_total connection_errors_total connection_reuses_total \
            current_queue current_sessions current_throttle downtime_seconds_total \
            failed_header_rewriting_total http_responses_total idle_connections_current \
            idle_connections_limit last_session_seconds limit_sessions loadbalanced_total \
            max_connect_time_seconds max_queue max_queue_time_seconds max_response_time_seconds \
            max_session_rate max_sessions max_total_time_seconds queue_limit \
            queue_time_average_seconds redispatch_warnings_total response_errors_total \
            response_time_average_seconds responses_denied_total retry_warnings_total \
            server_aborts_total sessions_total status total_time_average_seconds weight",
        labels: &[("proxy", "pool"), ("server", "member")],
    },
];

/// Pools have members, not servers.
const OTHERWISE: [(&str, &str); 3] = [
    ("octavia_pool_active_servers", "octavia_pool_active_members"),
    ("octavia_pool_backup_servers", "octavia_pool_backup_members"),
    ("octavia_pool_server_aborts_total", "octavia_pool_member_aborts_total"),
];

/// What no tenant made: the way to the metrics themselves.
const INTERNAL: &str = "prometheus-exporter";

/// Takes what HAProxy's exporter says, but of listeners that another serves.
pub fn take(text: &str, served: &dyn Fn(&str) -> bool, to: &mut Exposition) {
    let (mut help, mut kind) = (String::new(), Kind::Gauge);
    for line in text.lines().filter(|line| !line.contains(INTERNAL)) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or(String::new(), |(_, help)| help.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            kind = if rest.ends_with(" counter") { Kind::Counter } else { Kind::Gauge };
        } else if let Some(Sample { name, labels, value }) = sample(line, served) {
            to.add_written(&name, kind, &help, labels, value);
        }
    }
}

struct Sample {
    name: String,
    labels: String,
    value: String,
}

/// None of a family that is not shown.
fn sample(line: &str, served: &dyn Fn(&str) -> bool) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (family, labels) = series
        .strip_suffix('}')
        .map_or((series, ""), |series| series.split_once('{').unwrap_or((series, "")));
    let is_shown = |scope: &&Scope| {
        let rest = family.strip_prefix(scope.from);
        rest.is_some_and(|rest| scope.shown.split(' ').any(|shown| shown == rest))
    };
    let scope = SCOPES.iter().find(is_shown)?;
    // `pool:listener`, or the listener itself. Names are ids: no quotes and no commas in them.
    let proxy = labels.strip_prefix("proxy=\"").and_then(|rest| rest.split('"').next());
    if proxy.is_some_and(|proxy| served(proxy.rsplit(':').next().unwrap_or(proxy))) {
        return None;
    }
    let mut labels = labels.to_owned();
    for (from, to) in scope.labels {
        labels = labels.replacen(&format!("{from}=\""), &format!("{to}=\""), 1);
    }
    let name = format!("{}{}", scope.to, family.strip_prefix(scope.from)?);
    let otherwise = OTHERWISE.iter().find(|(from, _)| *from == name);
    let name = otherwise.map_or(name, |(_, to)| (*to).to_owned());
    Some(Sample { name, labels, value: value.to_owned() })
}
