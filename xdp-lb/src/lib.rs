//! The control program of xdp-lb: keeps the maps in step with what is wanted and what is there.

pub mod agent;
pub mod balancer;
pub mod check;
pub mod child;
pub mod explain;
pub mod follow;
pub mod guard;
pub mod haproxy;
pub mod haproxy_stats;
pub mod ids;
pub mod keepalived;
pub mod kernel;
pub mod lock;
pub mod moved;
pub mod namespace;
pub mod net;
pub mod netns;
pub mod observe;
pub mod plan;
pub mod plug;
pub mod record;
pub mod ring;
pub mod run;
pub mod sweep;
pub mod tables;
pub mod vitals;
