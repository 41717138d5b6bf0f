//! What survives a crash and a reboot: the document, and the configurations that Octavia uploaded.
//!
//! An upload is three files, each on the disk before the next:
//!
//! 1. `NAME.last` becomes a second name of the one in force;
//! 2. `NAME` becomes the new one, which was written aside;
//! 3. the document gets the digests of both, in the same way.
//!
//! The document decides. After a crash before the third, it still names the content of `NAME.last`, which
//! the next start puts back: the upload was not answered, and the controller repeats what was not
//! answered. A first upload has no `NAME.last`, and is taken over as a file that the document does not
//! know. A removal goes the same way: first `NAME.last`, which would otherwise be put back, then `NAME`,
//! then the document, and a crash in between leaves an object that is there or is missing. What else may
//! be wrong at a start, and what is done then, is in `store/start.rs`.
//!
//! Certificates are neither in the document nor kept twice: they are on a RAM disk, and gone after a
//! reboot, as in a stock amphora.

mod start;
mod trouble;

#[cfg(test)]
mod crash;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

use crate::document::{Document, Proof, sha256_hex};
use crate::durable::{self, Step, beside, keeping, removing, removing_tree, writing};
use crate::names::{CertificateName, ObjectId};
use crate::original::Original;
use crate::paths::Paths;
use start::Start;
pub use trouble::{Flaw, Remedy, Trouble};

/// Why something is not stored, or not found again.
///
/// Where storing failed, the disk may have the old or the new. The store goes on with the old, and the
/// next change writes over whatever is there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] durable::Error),
    #[error("the document cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Something else wrote to the file while the store was open.
    #[error("{}: is not what was stored, nor is the one before it", .0.display())]
    Lost(PathBuf),
}

/// The one who writes below Octavia's `base_path` and `base_cert_dir`.
///
/// What a method did is on the disk when it returns. Each may be called again: what is stored already is
/// stored, and what is gone is removed. The calls are synchronous, for files that are small.
#[derive(Debug)]
pub struct Store {
    paths: Paths,
    document: Document,
}

impl Store {
    /// Reads the document and what it names, and mends what is not as it was left.
    ///
    /// Configurations that the document does not know are taken over: those of a stock agent, and all of
    /// them where the document is lost. Each such finding is a trouble, and no error.
    pub fn open(paths: Paths) -> Result<(Self, Vec<Trouble>), Error> {
        let Start { document, troubles, steps } = Start::of(&paths)?;
        durable::run(&steps)?;
        Ok((Self { paths, document }, troubles))
    }

    /// As it is on the disk.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Changes the document; where that fails, it is as it was.
    pub fn update(&mut self, change: impl FnOnce(&mut Document)) -> Result<(), Error> {
        self.carry_out(self.edit(change)?)
    }

    /// Whether an object is to be served after the next start of the agent.
    pub fn note_stopped(&mut self, id: &ObjectId, stopped: bool) -> Result<(), Error> {
        self.update(|document| {
            if stopped {
                document.stopped.insert(id.clone());
            } else {
                document.stopped.remove(id);
            }
        })
    }

    /// Load balancers, and UDP and SCTP listeners, that are stored and were not stopped.
    pub fn started(&self) -> Vec<ObjectId> {
        let all = self.document.originals.keys().filter_map(Original::id);
        all.filter(|id| !self.document.stopped.contains(*id)).cloned().collect()
    }

    /// Load balancers of which an HAProxy configuration is stored.
    pub fn load_balancers(&self) -> Vec<ObjectId> {
        let id = |original: &Original| match original {
            Original::Haproxy(id) => Some(id.clone()),
            Original::Lvs(_) | Original::Vrrp => None,
        };
        self.document.originals.keys().filter_map(id).collect()
    }

    /// UDP and SCTP listeners of which a keepalived configuration is stored.
    pub fn lvs_listeners(&self) -> Vec<ObjectId> {
        let id = |original: &Original| match original {
            Original::Lvs(id) => Some(id.clone()),
            Original::Haproxy(_) | Original::Vrrp => None,
        };
        self.document.originals.keys().filter_map(id).collect()
    }

    /// Whether a configuration of this load balancer is stored.
    pub fn has_haproxy(&self, load_balancer: &ObjectId) -> bool {
        self.document.originals.contains_key(&Original::Haproxy(load_balancer.clone()))
    }

    /// Whether a configuration of this UDP or SCTP listener is stored.
    pub fn has_lvs(&self, listener: &ObjectId) -> bool {
        self.document.originals.contains_key(&Original::Lvs(listener.clone()))
    }

    /// The HAProxy configuration of a load balancer, as uploaded; None if there is none.
    pub fn haproxy(&self, load_balancer: &ObjectId) -> Result<Option<String>, Error> {
        self.original(&Original::Haproxy(load_balancer.clone()))
    }

    /// The keepalived configuration of a UDP or SCTP listener, as uploaded; None if there is none.
    pub fn lvs(&self, listener: &ObjectId) -> Result<Option<String>, Error> {
        self.original(&Original::Lvs(listener.clone()))
    }

    /// The keepalived configuration of VRRP, as uploaded; None if there is none.
    pub fn vrrp(&self) -> Result<Option<String>, Error> {
        self.original(&Original::Vrrp)
    }

    /// One that was found good: the one before it is in force until here.
    pub fn put_haproxy(&mut self, load_balancer: &ObjectId, text: &str) -> Result<(), Error> {
        self.carry_out(self.upload(Original::Haproxy(load_balancer.clone()), text)?)
    }

    /// Stores the keepalived configuration of a UDP or SCTP listener; 0644.
    pub fn put_lvs(&mut self, listener: &ObjectId, text: &str) -> Result<(), Error> {
        self.carry_out(self.upload(Original::Lvs(listener.clone()), text)?)
    }

    /// Stores the keepalived configuration of VRRP; 0644.
    pub fn put_vrrp(&mut self, text: &str) -> Result<(), Error> {
        self.carry_out(self.upload(Original::Vrrp, text)?)
    }

    /// For the operator to look at. Nobody else reads it.
    pub fn keep_rejected_haproxy(&self, id: &ObjectId, text: &[u8]) -> Result<(), Error> {
        Ok(durable::write(&self.paths.haproxy_rejected(id.as_str()), 0o600, text)?)
    }

    /// A load balancer with its certificates and whatever else is in its directories.
    pub fn remove_load_balancer(&mut self, id: &ObjectId) -> Result<(), Error> {
        self.carry_out(self.removal(&Original::Haproxy(id.clone()))?)
    }

    /// Forgets a UDP or SCTP listener, known or not.
    pub fn remove_lvs(&mut self, listener: &ObjectId) -> Result<(), Error> {
        self.carry_out(self.removal(&Original::Lvs(listener.clone()))?)
    }

    /// Forgets VRRP, known or not.
    pub fn remove_vrrp(&mut self) -> Result<(), Error> {
        self.carry_out(self.removal(&Original::Vrrp)?)
    }

    /// A certificate with its key, a CA, a CRL or a list of certificates: what is in it is not looked at.
    pub fn put_certificate(
        &self,
        load_balancer: &ObjectId,
        file: &CertificateName,
        content: &[u8],
    ) -> Result<(), Error> {
        let path = self.paths.certificate(load_balancer.as_str(), file.as_str());
        let private = |path: &Path| Step::MakeDirectory { path: path.to_owned(), mode: 0o700 };
        let mut steps = vec![
            private(self.paths.certs()),
            private(&self.paths.certificates(load_balancer.as_str())),
        ];
        steps.extend(writing(&path, 0o600, content));
        Ok(durable::run(&steps)?)
    }

    /// MD5 of its bytes in hex, by which the driver knows whether to upload it again; None if it is not
    /// there.
    pub fn certificate_md5(
        &self,
        load_balancer: &ObjectId,
        file: &CertificateName,
    ) -> Result<Option<String>, Error> {
        let path = self.paths.certificate(load_balancer.as_str(), file.as_str());
        Ok(durable::read(&path)?.map(|content| md5_hex(&content)))
    }

    /// SHA-256 in hex of each that a load balancer has, by file name.
    pub fn certificates(
        &self,
        load_balancer: &ObjectId,
    ) -> Result<BTreeMap<String, String>, Error> {
        let folder = self.paths.certificates(load_balancer.as_str());
        let mut digests = BTreeMap::new();
        for name in durable::names(&folder)? {
            // What was being written when the power failed has another name.
            let Ok(name) = CertificateName::try_from(name) else { continue };
            if let Some(content) = durable::read(&folder.join(name.as_str()))? {
                digests.insert(name.as_str().to_owned(), sha256_hex(&content));
            }
        }
        Ok(digests)
    }

    /// Removes one file, there or not.
    pub fn remove_certificate(
        &self,
        load_balancer: &ObjectId,
        file: &CertificateName,
    ) -> Result<(), Error> {
        let path = self.paths.certificate(load_balancer.as_str(), file.as_str());
        Ok(durable::run(&removing(&path))?)
    }

    /// All of a load balancer.
    pub fn remove_certificates(&self, load_balancer: &ObjectId) -> Result<(), Error> {
        Ok(durable::run(&removing_tree(&self.paths.certificates(load_balancer.as_str())))?)
    }

    fn original(&self, original: &Original) -> Result<Option<String>, Error> {
        Ok(self.find(original)?.map(|(_, text)| text))
    }

    /// What the document proves, and where. After a write that failed halfway, that is the one before.
    fn find(&self, original: &Original) -> Result<Option<(PathBuf, String)>, Error> {
        let Some(proof) = self.document.originals.get(original) else {
            return Ok(None);
        };
        let path = original.path(&self.paths);
        for path in [path.clone(), last(&path)] {
            let content = durable::read(&path)?.filter(|content| proof.is_of(content));
            if let Some(Ok(text)) = content.map(String::from_utf8) {
                return Ok(Some((path, text)));
            }
        }
        Err(Error::Lost(path))
    }

    fn edit(&self, change: impl FnOnce(&mut Document)) -> Result<Change, Error> {
        let mut document = self.document.clone();
        change(&mut document);
        self.change(Vec::new(), document)
    }

    fn upload(&self, original: Original, text: &str) -> Result<Change, Error> {
        let (path, mode) = (original.path(&self.paths), original.mode());
        let known = self.document.originals.get(&original);
        let mut before_sha256 = known.and_then(|proof| proof.before_sha256.clone());
        let mut steps: Vec<Step> = make_parent(&path).into_iter().collect();
        // A repeated upload does not push out the one before it. What cannot be read is not worth keeping.
        if let Ok(Some((place, now))) = self.find(&original)
            && now != text
        {
            before_sha256 = Some(sha256_hex(now.as_bytes()));
            if place == path {
                steps.extend(keeping(&path, &last(&path)));
            }
        }
        steps.extend(writing(&path, mode, text.as_bytes()));
        let mut document = self.document.clone();
        document.originals.insert(original, Proof::new(text.as_bytes(), before_sha256));
        self.change(steps, document)
    }

    fn removal(&self, original: &Original) -> Result<Change, Error> {
        let path = original.path(&self.paths);
        let mut steps = [removing(&last(&path)), removing(&path)].concat();
        match original {
            Original::Haproxy(id) => {
                steps.extend(removing_tree(&self.paths.load_balancer(id.as_str())));
                steps.extend(removing_tree(&self.paths.certificates(id.as_str())));
            }
            Original::Lvs(_) | Original::Vrrp => {}
        }
        let mut document = self.document.clone();
        document.forget(original);
        self.change(steps, document)
    }

    /// The document is written even if it stays the same: after a write that failed, another may be there.
    fn change(&self, mut steps: Vec<Step>, document: Document) -> Result<Change, Error> {
        steps.extend(document_steps(&self.paths, &self.document, &document)?);
        Ok(Change { steps, document })
    }

    fn carry_out(&mut self, change: Change) -> Result<(), Error> {
        durable::run(&change.steps)?;
        self.document = change.document;
        Ok(())
    }
}

/// What has to be done, and the document then.
struct Change {
    steps: Vec<Step>,
    document: Document,
}

/// MD5 in hex, the `ETag` of every upload.
pub fn md5_hex(content: &[u8]) -> String {
    hex::encode(Md5::digest(content))
}

/// Where the generation before is kept.
fn last(path: &Path) -> PathBuf {
    beside(path, "last")
}

fn make_parent(path: &Path) -> Option<Step> {
    path.parent().map(|path| Step::MakeDirectory { path: path.to_owned(), mode: 0o755 })
}

/// The old one is kept, unless it would push out the one before it for nothing.
fn document_steps(
    paths: &Paths,
    old: &Document,
    new: &Document,
) -> Result<Vec<Step>, serde_json::Error> {
    let path = paths.document();
    let mut steps: Vec<Step> = make_parent(&path).into_iter().collect();
    if old != new {
        steps.extend(writing(&last(&path), 0o600, &old.to_json()?));
    }
    steps.extend(writing(&path, 0o600, &new.to_json()?));
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use crate::plug::of_mtu;
    use tempfile::TempDir;

    use super::*;

    /// A call, and all files and directories then. Each is made twice and must not differ, on a store
    /// with a load balancer x, a stopped UDP listener u, VRRP and a certificate.
    struct Case {
        name: &'static str,
        call: fn(&mut Store) -> Result<(), Error>,
        /// What is there besides [`FULL`], or has another content, or is gone (None).
        differs: &'static [(&'static str, Option<(u32, &'static str)>)],
    }

    /// The document and the one before it have another test.
    const FULL: &[(&str, u32, &str)] = &[
        ("certs", 0o700, ""),
        ("certs/x", 0o700, ""),
        ("certs/x/a.pem", 0o600, "a key"),
        ("lvs", 0o755, ""),
        ("lvs/octavia-keepalivedlvs-u.conf", 0o644, "udp"),
        ("vrrp", 0o755, ""),
        ("vrrp/octavia-keepalived.conf", 0o644, "vrrp"),
        ("x", 0o755, ""),
        ("x/haproxy.cfg", 0o600, "two"),
        ("x/haproxy.cfg.last", 0o600, "one"),
        ("xdp-lb.json", 0o600, ""),
        ("xdp-lb.json.last", 0o600, ""),
    ];

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        Case { name: "nothing", call: |_| Ok(()), differs: &[] },
        Case { name: "the same upload", call: |store| store.put_haproxy(&id("x"), "two"), differs: &[] },
        Case { name: "another upload", call: |store| store.put_haproxy(&id("x"), "three"),
            differs: &[("x/haproxy.cfg", Some((0o600, "three"))), ("x/haproxy.cfg.last", Some((0o600, "two")))] },
        Case { name: "another load balancer", call: |store| store.put_haproxy(&id("y"), "one"),
            differs: &[("y", Some((0o755, ""))), ("y/haproxy.cfg", Some((0o600, "one")))] },
        Case { name: "another upload of UDP", call: |store| store.put_lvs(&id("u"), "udp 2"),
            differs: &[("lvs/octavia-keepalivedlvs-u.conf", Some((0o644, "udp 2"))), ("lvs/octavia-keepalivedlvs-u.conf.last", Some((0o644, "udp")))] },
        Case { name: "another upload of VRRP", call: |store| store.put_vrrp("vrrp 2"),
            differs: &[("vrrp/octavia-keepalived.conf", Some((0o644, "vrrp 2"))), ("vrrp/octavia-keepalived.conf.last", Some((0o644, "vrrp")))] },
        Case { name: "a rejected upload", call: |store| store.keep_rejected_haproxy(&id("x"), b"\xff"),
            differs: &[("x/haproxy.cfg.new-failed", Some((0o600, "\u{fffd}")))] },
        Case { name: "a rejected first upload", call: |store| store.keep_rejected_haproxy(&id("y"), b"no"),
            differs: &[("y", Some((0o755, ""))), ("y/haproxy.cfg.new-failed", Some((0o600, "no")))] },
        Case { name: "another certificate", call: |store| store.put_certificate(&id("x"), &pem("a.pem"), b"another key"),
            differs: &[("certs/x/a.pem", Some((0o600, "another key")))] },
        Case { name: "a certificate of another", call: |store| store.put_certificate(&id("y"), &pem("b.pem"), b"b"),
            differs: &[("certs/y", Some((0o700, ""))), ("certs/y/b.pem", Some((0o600, "b")))] },
        Case { name: "a certificate is removed", call: |store| store.remove_certificate(&id("x"), &pem("a.pem")),
            differs: &[("certs/x/a.pem", None)] },
        Case { name: "one that is not there", call: |store| store.remove_certificate(&id("y"), &pem("a.pem")), differs: &[] },
        Case { name: "all certificates are removed", call: |store| store.remove_certificates(&id("x")),
            differs: &[("certs/x", None), ("certs/x/a.pem", None)] },
        Case { name: "a load balancer is removed", call: |store| store.remove_load_balancer(&id("x")),
            differs: &[("certs/x", None), ("certs/x/a.pem", None), ("x", None), ("x/haproxy.cfg", None), ("x/haproxy.cfg.last", None)] },
        Case { name: "one that is not there", call: |store| store.remove_load_balancer(&id("u")), differs: &[] },
        Case { name: "a listener is removed", call: |store| store.remove_lvs(&id("u")),
            differs: &[("lvs/octavia-keepalivedlvs-u.conf", None)] },
        Case { name: "one that is not there", call: |store| store.remove_lvs(&id("x")), differs: &[] },
        Case { name: "VRRP is removed", call: |store| store.remove_vrrp(),
            differs: &[("vrrp/octavia-keepalived.conf", None)] },
        Case { name: "a plug", call: |store| store.update(|document| document.plugs.vip = Some(of_mtu(1450))), differs: &[] },
        Case { name: "a stop", call: |store| store.note_stopped(&id("x"), true), differs: &[] },
    ];

    #[test]
    fn calls() {
        for Case { name, call, differs } in CASES {
            let directory = full();
            let (mut store, _) = Store::open(paths(&directory)).unwrap();
            let mut want: BTreeMap<String, (u32, String)> = FULL
                .iter()
                .map(|(path, mode, content)| ((*path).to_owned(), (*mode, (*content).to_owned())))
                .collect();
            for (path, file) in *differs {
                want.remove(*path);
                want.extend(
                    file.map(|(mode, content)| ((*path).to_owned(), (mode, content.to_owned()))),
                );
            }
            call(&mut store).unwrap();
            let (document, there) = (store.document().clone(), files(&directory));
            assert_eq!(without_documents(&there), want, "{name}");

            call(&mut store).unwrap();
            assert_eq!(store.document(), &document, "{name}, again");
            assert_eq!(files(&directory), there, "{name}, again");
            let (store, troubles) = Store::open(paths(&directory)).unwrap();
            assert_eq!((store.document(), troubles), (&document, vec![]), "{name}, opened again");
        }
    }

    #[test]
    fn answers() {
        let directory = full();
        let (mut store, _) = Store::open(paths(&directory)).unwrap();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(store.haproxy(&id("x")).unwrap(), text("two"));
        assert_eq!(store.haproxy(&id("u")).unwrap(), None);
        assert_eq!(store.lvs(&id("u")).unwrap(), text("udp"));
        assert_eq!(store.lvs(&id("x")).unwrap(), None);
        assert_eq!(store.vrrp().unwrap(), text("vrrp"));
        assert_eq!([store.has_haproxy(&id("x")), store.has_haproxy(&id("u"))], [true, false]);
        assert_eq!([store.has_lvs(&id("x")), store.has_lvs(&id("u"))], [false, true]);
        assert_eq!(store.load_balancers(), [id("x")]);
        assert_eq!(store.lvs_listeners(), [id("u")]);
        assert_eq!(store.started(), [id("x")]);
        store.note_stopped(&id("u"), false).unwrap();
        assert_eq!(store.started(), [id("x"), id("u")]);

        let md5 = |load_balancer, file| store.certificate_md5(&id(load_balancer), &pem(file));
        assert_eq!(md5("x", "a.pem").unwrap(), text("af0711eb7dab2d53c1a580c4705d7cb7"));
        assert_eq!(md5("x", "b.pem").unwrap(), None);
        assert_eq!(md5("y", "a.pem").unwrap(), None);
        let digests = |load_balancer| store.certificates(&id(load_balancer)).unwrap();
        let want = BTreeMap::from([("a.pem".to_owned(), sha256_hex(b"a key"))]);
        assert_eq!((digests("x"), digests("y")), (want, BTreeMap::new()));
        assert_eq!(md5_hex(b""), "d41d8cd98f00b204e9800998ecf8427e");
    }

    /// Somebody wrote to a file while the store was open: it does not pass for what was uploaded, and the
    /// next upload is in order again.
    #[test]
    fn lost() {
        let directory = full();
        let (mut store, _) = Store::open(paths(&directory)).unwrap();
        let path = paths(&directory).haproxy("x");
        fs::write(&path, "other").unwrap();
        let error = store.haproxy(&id("x")).unwrap_err().to_string();
        assert!(error.ends_with("haproxy.cfg: is not what was stored, nor is the one before it"));
        store.put_haproxy(&id("x"), "two").unwrap();
        assert_eq!(store.haproxy(&id("x")).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::read_to_string(last(&path)).unwrap(), "one");
    }

    /// A link in place of a directory of certificates, or of a load balancer: what it points to stays.
    #[test]
    fn links() {
        let directory = full();
        let (mut store, _) = Store::open(paths(&directory)).unwrap();
        let elsewhere = directory.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("a.pem"), "not ours").unwrap();
        for path in [paths(&directory).certificates("y"), paths(&directory).load_balancer("y")] {
            symlink(&elsewhere, &path).unwrap();
            store.remove_load_balancer(&id("y")).unwrap();
            assert!(fs::symlink_metadata(&path).is_err());
            assert_eq!(fs::read_to_string(elsewhere.join("a.pem")).unwrap(), "not ours");
        }
    }

    fn full() -> TempDir {
        let directory = TempDir::new().unwrap();
        let (mut store, troubles) = Store::open(paths(&directory)).unwrap();
        assert_eq!(troubles, []);
        assert!(files(&directory).is_empty(), "a start that finds nothing writes nothing");
        store.put_haproxy(&id("x"), "one").unwrap();
        store.put_haproxy(&id("x"), "two").unwrap();
        store.put_lvs(&id("u"), "udp").unwrap();
        store.put_vrrp("vrrp").unwrap();
        store.put_certificate(&id("x"), &pem("a.pem"), b"a key").unwrap();
        store.note_stopped(&id("u"), true).unwrap();
        directory
    }

    /// Mode and content of everything, the content of directories being empty.
    fn files(directory: &TempDir) -> BTreeMap<String, (u32, String)> {
        let base = paths(directory).base().to_owned();
        let (mut files, mut left) = (BTreeMap::new(), vec![base.clone()]);
        while let Some(path) = left.pop() {
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            let content = if metadata.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                String::new()
            } else {
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
            };
            let name = path.strip_prefix(&base).unwrap().to_str().unwrap().to_owned();
            files.insert(name, (metadata.permissions().mode() & 0o7777, content));
        }
        files.remove("");
        files
    }

    fn without_documents(
        files: &BTreeMap<String, (u32, String)>,
    ) -> BTreeMap<String, (u32, String)> {
        let mut files = files.clone();
        for (path, (_, content)) in &mut files {
            if path.starts_with("xdp-lb.json") {
                content.clear();
            }
        }
        files
    }

    fn paths(directory: &TempDir) -> Paths {
        Paths::new(directory.path().join("base"), directory.path().join("base/certs"))
    }

    fn id(text: &str) -> ObjectId {
        text.to_owned().try_into().unwrap()
    }

    fn pem(text: &str) -> CertificateName {
        text.to_owned().try_into().unwrap()
    }
}
