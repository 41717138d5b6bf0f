//! The agent's own certificate and configuration, replaced while it runs.

use std::sync::Arc;

use hyper::body::Bytes;
use tracing::{info, warn};

use super::{Answer, Door, tls};
use crate::amphora::Amphora;
use crate::config::{AgentConfig, BadDestination, Error};
use crate::{durable, oslo};

impl<A: Amphora> Door<A> {
    pub(super) async fn put_server_certificate(&self, body: &Bytes) -> Answer {
        if let Err(error) = tls::check(body) {
            return Answer::invalid("Invalid certificate", &error.to_string());
        }
        let _turn = self.turn.lock().await;
        let file = self.config.borrow().agent_server_cert.clone();
        match durable::write(&file, 0o600, body) {
            Ok(()) => Answer::ok().accepted(),
            Err(error) => Answer::failed("Error storing the certificate", &error.to_string()),
        }
    }

    pub(super) async fn put_config(&self, body: &Bytes) -> Answer {
        let refused =
            |why: &str| Answer::failed("Unable to update amphora-agent configuration.", why);
        let _turn = self.turn.lock().await;
        let Ok(text) = str::from_utf8(body) else {
            return refused("it is not UTF-8");
        };
        let told = match read(text) {
            Ok((told, faults)) => {
                for fault in faults {
                    warn!("{fault}");
                }
                told
            }
            Err(why) => return refused(&why.to_string()),
        };
        if let Err(error) = durable::write(&self.file, 0o600, body) {
            return refused(&error.to_string());
        }
        let (config, ignored) = self.config.borrow().mutate(&told);
        for key in ignored {
            info!("{key}");
        }
        self.config.send_replace(Arc::new(config));
        Answer::ok().accepted()
    }
}

fn read(text: &str) -> Result<(AgentConfig, Vec<BadDestination>), Error> {
    AgentConfig::from_file(&oslo::File::parse(text)?)
}
