//! What the door asks of the machine, call by call.
//!
//! One that changes something holds the lock to its end, and has [`CALL_TIMEOUT`](super::CALL_TIMEOUT) for
//! all of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use agent_api::amphora::{
    self, Action, Amphora, Failed, PlugError, Plugged, Versions, Vitals, Wanted,
};
use agent_api::document::Plugs;
use agent_api::plug::{NetworkPlug, VipPlug};
use agent_api::rules::Rule;
use agent_api::understood::Listener;
use tracing::warn;

use super::{Machine, blocking, deadline, until};
use crate::vitals;

impl Amphora for Machine {
    async fn versions(&self) -> Result<Versions, Failed> {
        let programs = Arc::clone(&self.programs);
        blocking(move || programs.versions().map_err(|error| Failed(error.to_string()))).await
    }

    async fn vitals(&self) -> Result<Vitals, Failed> {
        let networks = match self.inside.get() {
            Some(inside) => inside.nics.traffic().await?,
            None => BTreeMap::new(),
        };
        vitals::now(networks).map_err(|error| Failed(error.to_string()))
    }

    async fn metrics(&self, listeners: &[Listener]) -> Result<String, Failed> {
        self.exposition(listeners).await
    }

    async fn interface(&self, ip: IpAddr) -> Result<Option<String>, Failed> {
        match self.inside.get() {
            Some(inside) => inside.nics.interface(ip).await,
            None => Ok(None),
        }
    }

    async fn restore(&self, plugs: &Plugs) -> Result<(), Failed> {
        if *plugs == Plugs::default() {
            return Ok(());
        }
        let deadline = deadline();
        let mut state = self.turn(deadline).await?;
        // Before anything can fail: nothing is served without its rules.
        state.vip = plugs.vip.clone();
        state.rules = plugs.rules.clone();
        state.missing = Some(plugs.clone());
        let restored = until(deadline, self.plug_missing(&mut state)).await;
        drop(state);
        let inside = self.inside().await?;
        if self.paths().vrrp().exists() && !self.vrrp_stopped().exists() {
            let vrrp =
                if inside.keepalived.running() { Ok(()) } else { self.vrrp(Action::Start).await };
            if let Err(Failed(why)) = vrrp {
                warn!("VRRP is not back: {why}");
            }
        }
        restored
    }

    async fn plug_vip(&self, plug: &VipPlug) -> Result<Plugged, PlugError> {
        let deadline = deadline();
        let mut state = self.turn(deadline).await?;
        until(deadline, async {
            let inside = self.inside().await?;
            // First, so that nobody reaches it without.
            self.guard_kernel(plug.sriov, state.rules.as_deref()).await?;
            let plugged = inside.nics.plug_vip(plug, self.topology()).await;
            match &plugged {
                Ok(_) => state.note_vip(plug),
                // The request before may have been cut short.
                Err(PlugError::Exists) if state.vip.is_none() => state.note_vip(plug),
                Err(PlugError::Exists) => {}
                Err(PlugError::NotFound | PlugError::Failed(_)) => return plugged,
            }
            self.plugged(&mut state).await?;
            plugged
        })
        .await
    }

    async fn plug_network(&self, plug: &NetworkPlug) -> Result<Plugged, PlugError> {
        let deadline = deadline();
        let mut state = self.turn(deadline).await?;
        until(deadline, async {
            let inside = self.inside().await?;
            if let Some(vip) = &plug.vip {
                self.guard_kernel(vip.sriov, state.rules.as_deref()).await?;
            }
            let plugged = inside.nics.plug_network(plug, self.topology()).await?;
            if let Some(vip) = &plug.vip {
                state.note_vip(vip);
            }
            if let Some(missing) = &mut state.missing {
                missing.networks.insert(plug.mac, plug.clone());
            }
            self.plugged(&mut state).await?;
            Ok(plugged)
        })
        .await
    }

    async fn guard(&self, _: &str, rules: &[Rule]) -> Result<(), Failed> {
        let deadline = deadline();
        let mut state = self.turn(deadline).await?;
        let before = state.rules.replace(rules.to_vec());
        let sriov = state.guarded().is_some();
        if let Err(failed) = until(deadline, self.guard_kernel(sriov, Some(rules))).await {
            state.rules = before;
            return Err(failed);
        }
        until(deadline, self.bring(&mut state)).await
    }

    async fn check(&self, whole: &amphora::Haproxy) -> Result<(), Failed> {
        let deadline = deadline();
        // What is tried is written where supervision would write it too.
        let _turn = self.turn(deadline).await?;
        let haproxy = self.haproxy(&whole.config.load_balancer, self.inside().await?)?;
        let whole = whole.clone();
        until(deadline, blocking(move || haproxy.check(&whole))).await
    }

    async fn apply(&self, wanted: &Wanted, announce: &[IpAddr]) -> Result<(), Failed> {
        let applied = self.serve(wanted).await;
        self.brought.store(true, Ordering::Relaxed);
        applied?;
        if let Some(inside) = self.inside.get() {
            inside.nics.announce(announce).await;
        }
        Ok(())
    }

    async fn vrrp(&self, action: Action) -> Result<(), Failed> {
        let deadline = deadline();
        let turn = self.turn(deadline).await?;
        let inside = self.inside().await?;
        let keepalived = Arc::clone(&inside.keepalived);
        let (program, id) = (self.setup.program.clone(), self.config.borrow().amphora_id.clone());
        self.note_vrrp(action)?;
        let begins = action != Action::Stop && !keepalived.running();
        // Where nothing is served nobody is elected.
        let vip = turn.wanted.served.as_ref().and(turn.vip.as_ref());
        let vip = vip.and_then(|plug| plug.vips.first()).map(|vip| vip.address);
        let work = blocking(move || {
            keepalived.write_check(
                &program,
                &["check".as_ref(), "--name".as_ref(), id.as_str().as_ref()],
            )?;
            keepalived.vrrp(action)
        });
        until(deadline, work).await?;
        drop(turn);
        if let Some(vip) = vip.filter(|_| begins) {
            self.await_election(vip).await?;
        }
        Ok(())
    }
}
