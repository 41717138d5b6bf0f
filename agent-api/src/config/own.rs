//! Options of our own, which no controller knows: `[xdp_lb]`, in a file that none overwrites.

use std::io;
use std::path::Path;

use super::{AgentConfig, Error, HeartbeatEnvelope, Options, file, options};
use crate::monitor::OnMarkedDown;
use crate::oslo::{File, Known};

/// Name of the file with `[xdp_lb]`, in the folder of the controller's; it need not be there. What stands
/// in the controller's counts as well, until a `PUT /config` writes it anew.
pub const OWN_FILE: &str = "xdp-lb.conf";

/// Our own, if it is there, with nothing but what we know.
pub(super) fn own_file(path: &Path) -> Result<Option<File>, Error> {
    let file = match file(path) {
        Err(Error::Read(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let known = |section: &str, key: &str| {
        let mut options = options::OWN.iter();
        options.any(|option| option.section == section && option.key == key)
    };
    if let Some((section, key)) = file.keys().find(|(section, key)| !known(section, key)) {
        return Err(Error::Unknown { section: section.to_owned(), key: key.to_owned() });
    }
    Ok(Some(file))
}

impl AgentConfig {
    /// Takes the options of our own that a file has.
    pub(super) fn set_own(&mut self, file: &File) -> Result<(), Error> {
        let read = Options(file);
        let has = |Known { section, key, .. }: Known| file.text(section, key).is_some();
        if has(options::HEARTBEAT_ENVELOPE) {
            let option = &options::HEARTBEAT_ENVELOPE;
            self.heartbeat_envelope =
                read.value(option, "octavia or sealed", heartbeat_envelope)?;
        }
        if has(options::ON_MARKED_DOWN) {
            let option = &options::ON_MARKED_DOWN;
            self.on_marked_down = read.value(option, "keep or reset", on_marked_down)?;
        }
        Ok(())
    }
}

fn on_marked_down(text: &str) -> Option<OnMarkedDown> {
    match text {
        "keep" => Some(OnMarkedDown::Keep),
        "reset" => Some(OnMarkedDown::Reset),
        _ => None,
    }
}

fn heartbeat_envelope(text: &str) -> Option<HeartbeatEnvelope> {
    match text {
        "octavia" => Some(HeartbeatEnvelope::Octavia),
        "sealed" => Some(HeartbeatEnvelope::Sealed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{LEAST, least};
    use super::*;

    #[test]
    fn a_file_of_our_own() {
        let folder = tempfile::tempdir().unwrap();
        let (path, own) = (folder.path().join("a.conf"), folder.path().join(OWN_FILE));
        fs::write(&path, format!("{LEAST}[xdp_lb]\nheartbeat_envelope = sealed\n")).unwrap();
        let read =
            || AgentConfig::read(&path).map(|(config, _)| config).map_err(|it| it.to_string());
        let sealed = AgentConfig { heartbeat_envelope: HeartbeatEnvelope::Sealed, ..least() };
        let reset = AgentConfig { on_marked_down: OnMarkedDown::Reset, ..sealed.clone() };
        let bad = |why: &str| Err(format!("{}: {why}", own.display()));
        assert_eq!(read(), Ok(sealed.clone()), "none");
        let rows = [
            ("", Ok(sealed)),
            ("[xdp_lb]\non_marked_down = reset", Ok(reset)),
            ("# c\n[xdp_lb]\nheartbeat_envelope = octavia", Ok(least())),
            (
                "[xdp_lb]\nheartbeat_envelop = sealed",
                bad("[xdp_lb] heartbeat_envelop is no option"),
            ),
            (
                "[xdp-lb]\nheartbeat_envelope = sealed",
                bad("[xdp-lb] heartbeat_envelope is no option"),
            ),
            (
                "[xdp_lb]\non_marked_down = kill",
                bad("[xdp_lb] on_marked_down = \"kill\": expected keep or reset"),
            ),
            ("on_marked_down = reset", bad("line 1: a key before the first section")),
        ];
        for (text, want) in rows {
            fs::write(&own, text).unwrap();
            assert_eq!(read(), want, "{text}");
        }
    }
}
