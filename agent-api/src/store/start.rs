//! What is on the disk when the store opens, and what has to be done about it.
//!
//! The steps that mend it end with the document, as those of an upload do: a crash among them leaves what
//! the next start comes to the same end with.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::trouble::{Flaw, Remedy, Trouble};
use super::{Error, document_steps, last};
use crate::document::{Document, Proof, sha256_hex};
use crate::durable::{self, Step, beside, renaming, writing};
use crate::original::Original;
use crate::paths::Paths;

/// The document once the steps are done.
pub struct Start {
    pub document: Document,
    pub troubles: Vec<Trouble>,
    pub steps: Vec<Step>,
}

impl Start {
    /// Changes nothing on the disk.
    pub fn of(paths: &Paths) -> Result<Self, Error> {
        let mut start =
            Self { document: Document::default(), troubles: Vec::new(), steps: Vec::new() };
        let is_newest = start.read_document(&paths.document());
        let read = start.document.clone();
        let known: Vec<Original> = read.originals.keys().cloned().collect();
        for original in known.into_iter().chain(on_disk(paths)?).collect::<BTreeSet<_>>() {
            start.mend(&original, paths, is_newest);
        }
        if !start.troubles.is_empty() {
            start.steps.extend(document_steps(paths, &read, &start.document)?);
        }
        Ok(start)
    }

    /// The one at the path, the one before it, or an empty one. Whether it is the first of them.
    fn read_document(&mut self, path: &Path) -> bool {
        let flaw = match document_at(path) {
            Ok(document) => {
                self.document = document;
                return true;
            }
            Err(flaw) => flaw,
        };
        let before = document_at(&last(path));
        if flaw == Flaw::Missing && before == Err(Flaw::Missing) {
            return false;
        }
        let remedy = if before.is_ok() { Remedy::Last } else { Remedy::Nothing };
        self.document = before.unwrap_or_default();
        self.give_up(path, flaw, remedy);
        false
    }

    fn mend(&mut self, original: &Original, paths: &Paths, is_newest: bool) {
        let path = original.path(paths);
        let known = self.document.originals.get(original);
        let before = text_at(&last(&path));
        let proven = |text: &String| known.is_some_and(|proof| proof.is_of_either(text.as_bytes()));
        let before_sha256 =
            before.as_ref().ok().filter(|text| proven(text)).map(|it| sha256_hex(it.as_bytes()));
        let (text, before_sha256) = match judge(text_at(&path), before, known, is_newest) {
            Verdict::Sound => return,
            Verdict::AsItIs { flaw, text } => {
                self.troubles.push(Trouble { path, flaw, remedy: Remedy::AsItIs });
                (text, before_sha256)
            }
            Verdict::Last { flaw, text } => {
                self.give_up(&path, flaw, Remedy::Last);
                self.steps.extend(writing(&path, original.mode(), text.as_bytes()));
                (text, None)
            }
            Verdict::Nothing { flaw } => {
                self.give_up(&path, flaw, Remedy::Nothing);
                self.document.forget(original);
                return;
            }
        };
        let proof = Proof::new(text.as_bytes(), before_sha256);
        self.document.originals.insert(original.clone(), proof);
    }

    fn give_up(&mut self, path: &Path, flaw: Flaw, remedy: Remedy) {
        if flaw != Flaw::Missing {
            self.steps.extend(renaming(path, &beside(path, "bad")));
        }
        self.troubles.push(Trouble { path: path.to_owned(), flaw, remedy });
    }
}

/// Which content of an original is used.
enum Verdict {
    /// The one that the document proves.
    Sound,
    AsItIs {
        flaw: Flaw,
        text: String,
    },
    /// The one before it.
    Last {
        flaw: Flaw,
        text: String,
    },
    Nothing {
        flaw: Flaw,
    },
}

/// A file that is not what the document proves was either damaged or changed by somebody's hand, which is
/// to be respected. What is no text or has lost some is taken for damage.
///
/// An upload that the newest document does not know was cut off by a crash. One that an older document does
/// not know was in the newest.
fn judge(
    now: Result<String, Flaw>,
    before: Result<String, Flaw>,
    known: Option<&Proof>,
    is_newest: bool,
) -> Verdict {
    let proven = |text: &str| known.is_some_and(|proof| proof.is_of(text.as_bytes()));
    let usable = |text: &String| match known {
        Some(proof) => proof.is_of_either(text.as_bytes()),
        None => is_text(text),
    };
    let flaw = match (now, known) {
        (Ok(text), _) if proven(&text) => return Verdict::Sound,
        (Ok(text), _) if !is_text(&text) => Flaw::NotText,
        (Ok(text), None) => return Verdict::AsItIs { flaw: Flaw::Unknown, text },
        // There was an upload since this document.
        (Ok(text), Some(_)) if before.as_ref().is_ok_and(|text| proven(text)) => {
            if !is_newest {
                return Verdict::AsItIs { flaw: Flaw::Unknown, text };
            }
            Flaw::Changed
        }
        (Ok(text), Some(proof)) if text.len() < proof.bytes => {
            Flaw::Short { bytes: text.len(), stored: proof.bytes }
        }
        (Ok(text), Some(_)) => return Verdict::AsItIs { flaw: Flaw::Changed, text },
        (Err(flaw), _) => flaw,
    };
    match before.ok().filter(usable) {
        Some(text) => Verdict::Last { flaw, text },
        None => Verdict::Nothing { flaw },
    }
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

fn text_at(path: &Path) -> Result<String, Flaw> {
    String::from_utf8(content_at(path)?).map_err(|_| Flaw::NotText)
}

fn document_at(path: &Path) -> Result<Document, Flaw> {
    Ok(Document::from_json(&content_at(path)?)?)
}

fn content_at(path: &Path) -> Result<Vec<u8>, Flaw> {
    match durable::read(path) {
        Ok(content) => content.ok_or(Flaw::Missing),
        Err(error) => Err(Flaw::Unreadable(format!("cannot be read: {}", error.error))),
    }
}

/// Everything that has the path of an original.
fn on_disk(paths: &Paths) -> Result<Vec<Original>, Error> {
    let haproxy =
        durable::names(paths.base())?.into_iter().map(|name| format!("{name}/haproxy.cfg"));
    let lvs = durable::names(&paths.lvs_directory())?.into_iter().map(|name| format!("lvs/{name}"));
    let vrrp = String::from(Original::Vrrp);
    let originals = haproxy.chain(lvs).chain([vrrp]).filter_map(|path| path.try_into().ok());
    let is_there = |original: &Original| fs::symlink_metadata(original.path(paths)).is_ok();
    Ok(originals.filter(is_there).collect())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::symlink;

    use crate::plug::of_mtu;
    use tempfile::TempDir;

    use super::*;
    use crate::limits::FILE_BYTES_MAX;
    use crate::names::ObjectId;
    use crate::store::Store;

    const ONE: &str = "the first configuration\n";
    const TWO: &str = "the second configuration, longer\n";

    /// What is done to `x/haproxy.cfg`, of which ONE and then TWO were uploaded.
    struct Damage {
        name: &'static str,
        done: fn(&Path),
        used: Option<&'static str>,
        /// Without the path of the file.
        told: &'static str,
        /// Whether `haproxy.cfg.bad` is there then.
        set_aside: bool,
    }

    #[rustfmt::skip]
    const DAMAGES: &[Damage] = &[
        Damage { name: "nothing", done: |_| (), used: Some(TWO), told: "", set_aside: false },
        Damage { name: "missing", done: remove, used: Some(ONE),
            told: "is missing; the one before it is used", set_aside: false },
        Damage { name: "empty", done: |path| put(path, b""), used: Some(ONE),
            told: "is not text; the one before it is used", set_aside: true },
        Damage { name: "zeros", done: |path| put(path, &[0; TWO.len()]), used: Some(ONE),
            told: "is not text; the one before it is used", set_aside: true },
        Damage { name: "zeros at its end", done: |path| put(path, &[TWO.as_bytes(), &[0; 99]].concat()), used: Some(ONE),
            told: "is not text; the one before it is used", set_aside: true },
        Damage { name: "not UTF-8", done: |path| put(path, b"a longer configuration, of a caf\xe9\n"), used: Some(ONE),
            told: "is not text; the one before it is used", set_aside: true },
        Damage { name: "too large", done: |path| File::create(path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap(), used: Some(ONE),
            told: "cannot be read: more than 16777216 bytes; the one before it is used", set_aside: true },
        Damage { name: "a link", done: |path| { remove(path); symlink("elsewhere", path).unwrap() }, used: Some(ONE),
            told: "cannot be read: it is not a regular file; the one before it is used", set_aside: true },
        Damage { name: "a directory", done: |path| { remove(path); fs::create_dir(path).unwrap() }, used: Some(ONE),
            told: "cannot be read: it is not a regular file; the one before it is used", set_aside: true },
        Damage { name: "the one before it", done: |path| put(path, ONE.as_bytes()), used: Some(ONE),
            told: "is cut short, 24 bytes instead of 33; the one before it is used", set_aside: true },
        Damage { name: "swapped with the one before it", done: |path| { put(path, ONE.as_bytes()); put(&last(path), TWO.as_bytes()) }, used: Some(TWO),
            told: "is not what was stored; the one before it is used", set_aside: true },
        Damage { name: "edited by hand", done: |path| put(path, b"the second configuration, even longer\n"), used: Some("the second configuration, even longer\n"),
            told: "is not what was stored; it is used as it is", set_aside: false },
        Damage { name: "edited, without the one before it", done: |path| { put(path, b"the second configuration, LONGER\n"); remove(&last(path)) }, used: Some("the second configuration, LONGER\n"),
            told: "is not what was stored; it is used as it is", set_aside: false },
        Damage { name: "the one before it alone is torn", done: |path| put(&last(path), b"the"), used: Some(TWO),
            told: "", set_aside: false },
        Damage { name: "missing with the one before it", done: |path| { remove(path); remove(&last(path)) }, used: None,
            told: "is missing; there is nothing to use in its place", set_aside: false },
        Damage { name: "torn, and the one before it missing", done: |path| { put(path, b"the"); remove(&last(path)) }, used: None,
            told: "is cut short, 3 bytes instead of 33; there is nothing to use in its place", set_aside: true },
        Damage { name: "torn, and the one before it too", done: |path| { put(path, b"the"); put(&last(path), b"the first") }, used: None,
            told: "is cut short, 3 bytes instead of 33; there is nothing to use in its place", set_aside: true },
        Damage { name: "the directory is missing", done: |path| fs::remove_dir_all(path.parent().unwrap()).unwrap(), used: None,
            told: "is missing; there is nothing to use in its place", set_aside: false },
    ];

    #[test]
    fn damages() {
        for Damage { name, done, used, told, set_aside } in DAMAGES {
            let directory = uploaded_twice();
            let path = paths(&directory).haproxy("x");
            done(&path);
            let told =
                if told.is_empty() { vec![] } else { vec![format!("x/haproxy.cfg: {told}")] };
            assert_eq!(open(&directory), (state(*used, "newer"), told), "{name}");
            assert_eq!(open(&directory), (state(*used, "newer"), vec![]), "{name}, opened again");
            let is_there = fs::symlink_metadata(beside(&path, "bad")).is_ok();
            assert_eq!(is_there, *set_aside, "{name}");
        }
    }

    #[test]
    fn torn_originals() {
        let directory = uploaded_twice();
        let path = paths(&directory).haproxy("x");
        for bytes in 1..TWO.len() {
            put(&path, &TWO.as_bytes()[..bytes]);
            let told = format!(
                "x/haproxy.cfg: is cut short, {bytes} bytes instead of 33; the one before it is used"
            );
            assert_eq!(open(&directory), (state(Some(ONE), "newer"), vec![told]));
            Store::open(paths(&directory)).unwrap().0.put_haproxy(&x(), TWO).unwrap();
        }
    }

    /// What is done to the document, of which the latest knows TWO and "newer", and the one before it TWO and
    /// "old".
    struct Loss {
        name: &'static str,
        done: fn(&Path),
        haproxy: Option<&'static str>,
        note: &'static str,
        /// Of each trouble, the flaw or how its text begins, and the remedy.
        told: &'static [(&'static str, &'static str)],
    }

    #[rustfmt::skip]
    const LOSSES: &[Loss] = &[
        Loss { name: "missing", done: remove, haproxy: Some(TWO), note: "old",
            told: &[("is missing", "the one before it is used")] },
        Loss { name: "empty", done: |path| put(path, b""), haproxy: Some(TWO), note: "old",
            told: &[("is not a document: EOF", "the one before it is used")] },
        Loss { name: "zeros", done: |path| put(path, &[0; 999]), haproxy: Some(TWO), note: "old",
            told: &[("is not a document: expected value", "the one before it is used")] },
        Loss { name: "a later format", done: |path| put(path, b"{\"version\": 2}"), haproxy: Some(TWO), note: "old",
            told: &[("is of format 2, and this program knows 1", "the one before it is used")] },
        Loss { name: "a link", done: |path| { remove(path); symlink("xdp-lb.json.last", path).unwrap() }, haproxy: Some(TWO), note: "old",
            told: &[("cannot be read: it is not a regular file", "the one before it is used")] },
        Loss { name: "both are missing", done: |path| { remove(path); remove(&last(path)) }, haproxy: Some(TWO), note: "",
            told: &[("is not in the document", "it is used as it is")] },
        Loss { name: "both are torn", done: |path| { put(path, b"{"); put(&last(path), b"{") }, haproxy: Some(TWO), note: "",
            told: &[("is not a document: EOF", "there is nothing to use in its place"), ("is not in the document", "it is used as it is")] },
        Loss { name: "missing, and the one before it torn", done: |path| { remove(path); put(&last(path), b"") }, haproxy: Some(TWO), note: "",
            told: &[("is missing", "there is nothing to use in its place"), ("is not in the document", "it is used as it is")] },
        Loss { name: "torn like the original", done: |path| { put(path, b"{"); put(&path.with_file_name("x/haproxy.cfg"), b"the") }, haproxy: Some(ONE), note: "old",
            told: &[("is not a document: EOF", "the one before it is used"), ("is cut short, 3 bytes", "the one before it is used")] },
        Loss { name: "missing, and the original is zeros", done: |path| { remove(path); remove(&last(path)); put(&path.with_file_name("x/haproxy.cfg"), &[0; 33]) }, haproxy: Some(ONE), note: "",
            told: &[("is not text", "the one before it is used")] },
        Loss { name: "missing, and the original is zeros and the one before it empty",
            done: |path| { remove(path); remove(&last(path)); let haproxy = path.with_file_name("x/haproxy.cfg"); put(&haproxy, &[0; 33]); put(&last(&haproxy), b"") },
            haproxy: None, note: "",
            told: &[("is not text", "there is nothing to use in its place")] },
    ];

    #[test]
    fn losses() {
        for Loss { name, done, haproxy, note, told: want } in LOSSES {
            let directory = uploaded_twice();
            done(&paths(&directory).document());
            let want_state = state(*haproxy, note);
            let (found, told) = open(&directory);
            assert_eq!(found, want_state, "{name}");
            assert_eq!(told.len(), want.len(), "{name}: {told:?}");
            for (told, (flaw, remedy)) in told.iter().zip(*want) {
                assert!(told.contains(flaw) && told.ends_with(remedy), "{name}: {told}");
            }
            assert_eq!(open(&directory), (want_state, vec![]), "{name}, opened again");
        }
    }

    /// What is done before one start, and before the next.
    #[test]
    fn two_starts() {
        type Done = fn(&Paths);
        let edit: Done = |paths| put(&paths.haproxy("x"), TWO.repeat(2).as_bytes());
        let tear: Done = |paths| put(&paths.haproxy("x"), b"the");
        let tear_last: Done = |paths| put(&last(&paths.haproxy("x")), b"the first");
        let tear_document: Done = |paths| put(&paths.document(), b"{");
        let rows: [(&str, &[Done], Done, Option<&str>); 4] = [
            ("edited, then torn", &[edit], tear, Some(ONE)),
            ("edited with a torn one before it, then torn", &[edit, tear_last], tear, None),
            ("mended, then torn", &[tear], tear, Some(ONE)),
            ("mended, then the document torn", &[tear], tear_document, Some(ONE)),
        ];
        for (row, first, second, used) in rows {
            let directory = uploaded_twice();
            first.iter().for_each(|done| done(&paths(&directory)));
            open(&directory);
            second(&paths(&directory));
            assert_eq!(open(&directory).0, state(used, "newer"), "{row}");
        }
    }

    #[test]
    fn torn_documents() {
        let directory = uploaded_twice();
        let path = paths(&directory).document();
        let (whole, before) = (fs::read(&path).unwrap(), fs::read(last(&path)).unwrap());
        // The last byte ends the line.
        for bytes in (0..whole.len() - 1).step_by(7) {
            put(&path, &whole[..bytes]);
            put(&last(&path), &before);
            let (found, told) = open(&directory);
            assert_eq!(found, state(Some(TWO), "old"), "{bytes} bytes");
            assert_eq!(told.len(), 1, "{bytes} bytes: {told:?}");
            assert!(told[0].starts_with("xdp-lb.json: is not a document"), "{}", told[0]);
        }
    }

    /// The document before an upload, without one that tells it from the latest or with it: what was
    /// uploaded since is kept where the newer document was lost.
    #[test]
    fn older_documents() {
        type Done = fn(&Path);
        let rows: [(&str, Done, &str, usize); 2] = [
            ("the latest is torn", |path| put(path, b"{"), TWO, 2),
            (
                "somebody put back the one before",
                |path| put(path, &fs::read(last(path)).unwrap()),
                ONE,
                1,
            ),
        ];
        for (row, done, used, troubles) in rows {
            let directory = TempDir::new().unwrap();
            let (mut store, _) = Store::open(paths(&directory)).unwrap();
            store.put_haproxy(&x(), ONE).unwrap();
            store.put_haproxy(&x(), TWO).unwrap();
            done(&paths(&directory).document());
            let (found, told) = open(&directory);
            assert_eq!(found, state(Some(used), ""), "{row}");
            assert_eq!(told.len(), troubles, "{row}: {told:?}");
            assert_eq!(open(&directory), (state(Some(used), ""), vec![]), "{row}, opened again");
        }
    }

    /// What a stock agent leaves, and what only looks like it.
    #[test]
    fn adopts() {
        let directory = TempDir::new().unwrap();
        let base = paths(&directory).base().to_owned();
        for path in [
            "x/haproxy.cfg",
            "x/haproxy.cfg.new",
            "x/x.pid",
            "y/servers-state",
            "certs/haproxy.cfg",
            "lvs/haproxy.cfg",
            "lvs/octavia-keepalivedlvs-u.conf",
            "lvs/octavia-keepalivedlvs-u.pid",
            "lvs/octavia-keepalivedlvs-v.conf.new",
            "lvs/check/udp_check.sh",
            "vrrp/octavia-keepalived.conf",
            "vrrp/check_script.sh",
            "plugged_interfaces",
            ".hidden/haproxy.cfg",
        ] {
            let path = base.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            put(&path, path.to_str().unwrap().as_bytes());
        }
        put(&base.join("lvs/octavia-keepalivedlvs-w.conf"), b"caf\xe9");

        let (store, troubles) = Store::open(paths(&directory)).unwrap();
        let told: Vec<_> = troubles.iter().map(|trouble| below(&base, trouble)).collect();
        assert_eq!(
            told,
            [
                "x/haproxy.cfg: is not in the document; it is used as it is",
                "lvs/octavia-keepalivedlvs-u.conf: is not in the document; it is used as it is",
                "lvs/octavia-keepalivedlvs-w.conf: is not text; there is nothing to use in its place",
                "vrrp/octavia-keepalived.conf: is not in the document; it is used as it is",
            ]
        );
        let u = ObjectId::try_from("u".to_owned()).unwrap();
        assert_eq!((store.load_balancers(), store.lvs_listeners()), (vec![x()], vec![u.clone()]));
        for (path, text) in [
            ("x/haproxy.cfg", store.haproxy(&x())),
            ("lvs/octavia-keepalivedlvs-u.conf", store.lvs(&u)),
            ("vrrp/octavia-keepalived.conf", store.vrrp()),
        ] {
            assert_eq!(text.unwrap().as_deref(), base.join(path).to_str(), "{path}");
        }
        let (_, troubles) = Store::open(paths(&directory)).unwrap();
        assert_eq!(troubles, [], "opened again");
    }

    /// A document that names what it must not is as good as torn, and touches nothing.
    #[test]
    fn hostile_documents() {
        let directory = uploaded_twice();
        let path = paths(&directory).document();
        let hostile = fs::read_to_string(&path).unwrap().replace("x/haproxy", "../secret/haproxy");
        put(&path, hostile.as_bytes());
        let (found, told) = open(&directory);
        assert_eq!(found, state(Some(TWO), "old"));
        assert!(told[0].contains("\"../secret/haproxy.cfg\" is not the path"), "{told:?}");
    }

    /// What the document is told, by the length of an interface's frames.
    const NOTES: [&str; 2] = ["old", "newer"];

    /// ONE, then TWO; then a note in the document, and another.
    fn uploaded_twice() -> TempDir {
        let directory = TempDir::new().unwrap();
        let (mut store, troubles) = Store::open(paths(&directory)).unwrap();
        assert_eq!(troubles, []);
        store.put_haproxy(&x(), ONE).unwrap();
        store.put_haproxy(&x(), TWO).unwrap();
        for note in NOTES {
            store.update(|document| document.plugs.vip = Some(of_mtu(note.len() as u32))).unwrap();
        }
        directory
    }

    fn open(directory: &TempDir) -> ((Option<String>, String), Vec<String>) {
        let (store, troubles) = Store::open(paths(directory)).unwrap();
        let mtu = store.document().plugs.vip.as_ref().and_then(|vip| vip.mtu);
        let note = NOTES.iter().find(|note| Some(note.len() as u32) == mtu);
        let found = (store.haproxy(&x()).unwrap(), note.copied().unwrap_or_default().to_owned());
        let base = paths(directory).base().to_owned();
        (found, troubles.iter().map(|trouble| below(&base, trouble)).collect())
    }

    fn state(haproxy: Option<&str>, note: &str) -> (Option<String>, String) {
        (haproxy.map(str::to_owned), note.to_owned())
    }

    fn below(base: &Path, trouble: &Trouble) -> String {
        let path = trouble.path.strip_prefix(base).unwrap().to_owned();
        Trouble { path, ..trouble.clone() }.to_string()
    }

    fn paths(directory: &TempDir) -> Paths {
        Paths::new(directory.path().join("base"), directory.path().join("base/certs"))
    }

    fn x() -> ObjectId {
        "x".to_owned().try_into().unwrap()
    }

    fn put(path: &Path, content: &[u8]) {
        fs::write(path, content).unwrap();
    }

    fn remove(path: &Path) {
        fs::remove_file(path).unwrap();
    }
}
