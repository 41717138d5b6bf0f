//! What must survive a crash and a reboot: the document, and the originals that Octavia uploaded.
//!
//! An original is written first and then the document, which knows its digest. A crash in between leaves
//! an original that the document does not know: the next start takes the one before, which is kept
//! beside it, and the controller, which got no answer, asks again. Certificates are on a RAM disk and
//! known to nobody: they are gone after a reboot, as in a stock amphora.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

use crate::document::{Document, digest};
use crate::durable::{self, beside};
use crate::names::{CertificateName, ObjectId};
use crate::paths::Paths;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] durable::Error),
    #[error("the document cannot be written: {0}")]
    Document(#[from] serde_json::Error),
    #[error("{}: not UTF-8", .0.display())]
    NotText(PathBuf),
}

/// Something on the disk was not as it had been left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub path: PathBuf,
    pub what: String,
    pub remedy: Remedy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The one before it is used.
    Last,
    /// It is used as it is.
    AsItIs,
    /// There is nothing to use.
    Nothing,
}

/// The one writer of all below the base path.
#[derive(Debug)]
pub struct Store {
    paths: Paths,
    document: Document,
}

impl Store {
    /// Reads the document, and puts the originals that it names in order.
    pub fn open(paths: Paths) -> Result<(Self, Vec<Trouble>), Error> {
        let mut troubles = Vec::new();
        let document = read_document(&paths.document(), &mut troubles)?;
        let mut store = Self { paths, document };
        let before = store.document.clone();
        store.mend_originals(&mut troubles)?;
        store.adopt_originals(&mut troubles)?;
        if store.document != before || !troubles.is_empty() {
            store.write_document()?;
        }
        Ok((store, troubles))
    }

    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Changes the document, which is on the disk when this returns; it is as it was where that fails.
    pub fn update(&mut self, change: impl FnOnce(&mut Document)) -> Result<(), Error> {
        let before = self.document.clone();
        change(&mut self.document);
        if self.document == before {
            return Ok(());
        }
        self.write_document().inspect_err(|_| self.document = before)
    }

    /// Objects of which an original is stored, and whether they are to be served.
    pub fn objects(&self) -> Vec<(ObjectId, bool)> {
        let all = self.load_balancers().into_iter().chain(self.lvs_listeners());
        let started = |id: &ObjectId| !self.document.stopped.contains(id);
        all.map(|id| (id.clone(), started(&id))).collect()
    }

    pub fn note_stopped(&mut self, id: &ObjectId, stopped: bool) -> Result<(), Error> {
        self.update(|document| {
            if stopped {
                document.stopped.insert(id.clone());
            } else {
                document.stopped.remove(id);
            }
        })
    }

    fn load_balancers(&self) -> Vec<ObjectId> {
        self.known(|path| Some(path.strip_suffix("/haproxy.cfg")?.to_owned()))
    }

    fn lvs_listeners(&self) -> Vec<ObjectId> {
        self.known(|path| {
            let name = path.strip_prefix("lvs/octavia-keepalivedlvs-")?;
            Some(name.strip_suffix(".conf")?.to_owned())
        })
    }

    pub fn has_haproxy(&self, id: &ObjectId) -> bool {
        self.knows(&self.paths.haproxy(id.as_str()))
    }

    pub fn has_lvs(&self, id: &ObjectId) -> bool {
        self.knows(&self.paths.lvs(id.as_str()))
    }

    pub fn haproxy(&self, id: &ObjectId) -> Result<Option<String>, Error> {
        self.original(&self.paths.haproxy(id.as_str()))
    }

    pub fn lvs(&self, id: &ObjectId) -> Result<Option<String>, Error> {
        self.original(&self.paths.lvs(id.as_str()))
    }

    pub fn vrrp(&self) -> Result<Option<String>, Error> {
        self.original(&self.paths.vrrp())
    }

    pub fn put_haproxy(&mut self, id: &ObjectId, text: &str) -> Result<(), Error> {
        self.put(&self.paths.haproxy(id.as_str()), 0o600, text)
    }

    pub fn put_lvs(&mut self, id: &ObjectId, text: &str) -> Result<(), Error> {
        self.put(&self.paths.lvs(id.as_str()), 0o644, text)
    }

    pub fn put_vrrp(&mut self, text: &str) -> Result<(), Error> {
        self.put(&self.paths.vrrp(), 0o644, text)
    }

    /// For the operator to look at; under the name that the stock agent gives it.
    pub fn keep_rejected_haproxy(&self, id: &ObjectId, text: &[u8]) -> Result<(), Error> {
        let path = beside(&self.paths.haproxy(id.as_str()), "new-failed");
        Ok(durable::write(&path, 0o600, text)?)
    }

    /// With its certificates.
    pub fn remove_load_balancer(&mut self, id: &ObjectId) -> Result<(), Error> {
        self.forget(id, &self.paths.haproxy(id.as_str()))?;
        durable::remove_all(&self.paths.certs().join(id.as_str()))?;
        Ok(durable::remove_all(&self.paths.base().join(id.as_str()))?)
    }

    pub fn remove_lvs(&mut self, id: &ObjectId) -> Result<(), Error> {
        self.forget(id, &self.paths.lvs(id.as_str()))
    }

    pub fn put_certificate(
        &self,
        id: &ObjectId,
        file: &CertificateName,
        content: &[u8],
    ) -> Result<(), Error> {
        let path = self.paths.certificate(id.as_str(), file.as_str());
        Ok(durable::write(&path, 0o600, content)?)
    }

    /// MD5 of the bytes in hex; none where there is no such file.
    pub fn certificate_md5(
        &self,
        id: &ObjectId,
        file: &CertificateName,
    ) -> Result<Option<String>, Error> {
        let content = durable::read(&self.paths.certificate(id.as_str(), file.as_str()))?;
        Ok(content.map(|content| md5_hex(&content)))
    }

    pub fn remove_certificate(&self, id: &ObjectId, file: &CertificateName) -> Result<(), Error> {
        Ok(durable::remove(&self.paths.certificate(id.as_str(), file.as_str()))?)
    }

    fn put(&mut self, path: &Path, mode: u32, text: &str) -> Result<(), Error> {
        let known = self.document.originals.get(self.relative(path));
        if known == Some(&digest(text.as_bytes())) {
            return Ok(());
        }
        durable::replace(path, &beside(path, LAST), mode, text.as_bytes())?;
        let relative = self.relative(path).to_owned();
        self.update(|document| {
            document.originals.insert(relative, digest(text.as_bytes()));
        })
    }

    /// First the file: one that the document does not know would be adopted. The one before it before
    /// that: it would be put in its place.
    fn forget(&mut self, id: &ObjectId, path: &Path) -> Result<(), Error> {
        durable::remove(&beside(path, LAST))?;
        durable::remove(path)?;
        let relative = self.relative(path).to_owned();
        self.update(|document| {
            document.originals.remove(&relative);
            document.stopped.remove(id);
        })
    }

    fn original(&self, path: &Path) -> Result<Option<String>, Error> {
        if !self.knows(path) {
            return Ok(None);
        }
        let content = durable::read(path)?.map(String::from_utf8).transpose();
        content.map_err(|_| Error::NotText(path.to_owned()))
    }

    fn knows(&self, path: &Path) -> bool {
        self.document.originals.contains_key(self.relative(path))
    }

    fn known(&self, id: impl Fn(&str) -> Option<String>) -> Vec<ObjectId> {
        let paths = self.document.originals.keys().filter_map(|path| path.to_str());
        paths.filter_map(id).filter_map(|id| id.try_into().ok()).collect()
    }

    fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(self.paths.base()).unwrap_or(path)
    }

    fn write_document(&self) -> Result<(), Error> {
        let path = self.paths.document();
        Ok(durable::replace(&path, &beside(&path, LAST), 0o600, &self.document.to_json()?)?)
    }

    /// Each original is what the document says, or the one before is put in its place.
    fn mend_originals(&mut self, troubles: &mut Vec<Trouble>) -> Result<(), Error> {
        let mut found = BTreeMap::new();
        for (relative, wanted) in &self.document.originals {
            let path = self.paths.base().join(relative);
            let last = beside(&path, LAST);
            let (content, before) = (durable::read(&path)?, durable::read(&last)?);
            let is_wanted = |content: &Option<Vec<u8>>| {
                content.as_ref().is_some_and(|content| digest(content) == *wanted)
            };
            if is_wanted(&content) {
                found.insert(relative.clone(), wanted.clone());
                continue;
            }
            let what = content.as_ref().map_or("it is missing", |_| "it is not what was stored");
            let mut trouble = |remedy| {
                troubles.push(Trouble { path: path.clone(), what: what.to_owned(), remedy });
            };
            if is_wanted(&before) {
                trouble(Remedy::Last);
                let moved = fs::rename(&last, &path);
                let what = "rename to";
                moved.map_err(|error| durable::Error { path: path.clone(), what, error })?;
                found.insert(relative.clone(), wanted.clone());
            } else if let Some(content) = content.filter(|content| !content.is_empty()) {
                // By an operator's hand, as there is no sign of the one that was stored.
                trouble(Remedy::AsItIs);
                found.insert(relative.clone(), digest(&content));
            } else {
                trouble(Remedy::Nothing);
            }
        }
        self.document.originals = found;
        Ok(())
    }

    /// Takes over what a stock agent left here.
    fn adopt_originals(&mut self, troubles: &mut Vec<Trouble>) -> Result<(), Error> {
        let mut there = Vec::new();
        for id in names_in(self.paths.base())? {
            there.push(self.paths.haproxy(&id));
        }
        for name in names_in(&self.paths.base().join("lvs"))? {
            if name.ends_with(".conf") {
                there.push(self.paths.base().join("lvs").join(name));
            }
        }
        there.push(self.paths.vrrp());
        for path in there.into_iter().filter(|path| path.is_file()) {
            let relative = self.relative(&path).to_owned();
            if self.document.originals.contains_key(&relative) {
                continue;
            }
            if let Some(content) = durable::read(&path)? {
                self.document.originals.insert(relative, digest(&content));
                let what = "nobody knows of it".to_owned();
                troubles.push(Trouble { path, what, remedy: Remedy::AsItIs });
            }
        }
        Ok(())
    }
}

/// The generation before.
const LAST: &str = "last";

/// The `ETag` of uploads.
pub fn md5_hex(content: &[u8]) -> String {
    hex::encode(Md5::digest(content))
}

/// The document, or the one before it, or an empty one.
fn read_document(path: &Path, troubles: &mut Vec<Trouble>) -> Result<Document, Error> {
    let last = beside(path, LAST);
    let (now, before) = (durable::read(path)?, durable::read(&last)?);
    let parse = |json: &Option<Vec<u8>>| json.as_deref().map(Document::from_json);
    let what = match (parse(&now), &before) {
        (Some(Ok(document)), _) => return Ok(document),
        (None, None) => return Ok(Document::default()),
        (Some(Err(error)), _) => error.to_string(),
        (None, Some(_)) => "it is missing".to_owned(),
    };
    let (document, remedy) = match parse(&before) {
        Some(Ok(document)) => (document, Remedy::Last),
        Some(Err(_)) | None => (Document::default(), Remedy::Nothing),
    };
    troubles.push(Trouble { path: path.to_owned(), what, remedy });
    if remedy == Remedy::Last {
        // Else the next write would keep the bad one in place of the good one.
        durable::remove(path)?;
    }
    Ok(document)
}

/// Names in a directory, sorted; none where there is no directory.
fn names_in(path: &Path) -> Result<Vec<String>, durable::Error> {
    let failed = |error| durable::Error { path: path.to_owned(), what: "list", error };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.remedy {
            Remedy::Last => "the one before is used",
            Remedy::AsItIs => "it is used as it is",
            Remedy::Nothing => "there is nothing to use in its place",
        };
        write!(f, "{}: {}; {remedy}", self.path.display(), self.what)
    }
}
