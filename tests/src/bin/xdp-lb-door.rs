//! The door with an amphora in memory behind it, for whoever speaks to it over the network.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use agent_api::config::{self, AgentConfig};
use agent_api::door::tls::Identity;
use agent_api::door::{Door, listen};
use anyhow::{Context, Result};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::sync::watch;
use xdp_lb_tests::memory::Memory;

/// Serves the amphora agent's API, prints `ready` and its port, and goes on until it is killed.
#[derive(Parser)]
struct Options {
    /// amphora-agent.conf; waited for.
    #[arg(long)]
    config: PathBuf,
    /// The folder by which the machine is changed.
    #[arg(long)]
    control: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();
    let options = Options::parse();
    let config: AgentConfig = config::wait_for(&options.config).await?;
    let minimum = config.agent_tls_protocol;
    let identity = Identity::load(&config.agent_server_cert, &config.agent_server_ca, minimum)?;
    let address = SocketAddr::new(config.bind_host, config.bind_port);
    let memory = Memory::controlled_by(options.control);
    let door = Door::open(memory, options.config, watch::Sender::new(Arc::new(config)))?;
    door.restore().await;
    let listener = TcpListener::bind(address).await.with_context(|| address.to_string())?;
    println!("ready {}", listener.local_addr()?.port());
    io::stdout().flush()?;
    listen(listener, Arc::new(identity), Arc::new(door)).await;
    Ok(())
}
