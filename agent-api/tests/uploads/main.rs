//! Octavia's uploads: what it renders is understood, and nothing else is.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod haproxy;
mod model;
mod understood;
