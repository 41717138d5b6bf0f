//! Crashes: a change is stopped after each of its steps, and so is what the next start does about it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::plug::of_mtu;
use tempfile::TempDir;

use super::start::Start;
use super::{Change, Error, Store, last};
use crate::document::{Plugs, sha256_hex};
use crate::durable::{self, Step};
use crate::names::{CertificateName, ObjectId};
use crate::original::Original;
use crate::paths::Paths;

struct Case {
    name: &'static str,
    before: fn(&mut Store) -> Result<(), Error>,
    change: fn(&Store) -> Result<Change, Error>,
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { name: "the first document", before: |_| Ok(()), change: plug },
    Case { name: "another document", before: used, change: plug },
    Case { name: "the first upload of all", before: |_| Ok(()), change: |store| store.upload(haproxy(), "one") },
    Case { name: "the first upload of a load balancer", before: used, change: |store| store.upload(Original::Haproxy(id("y")), "one") },
    Case { name: "a second upload", before: |store| store.put_haproxy(&id("x"), "one"), change: |store| store.upload(haproxy(), "one more") },
    Case { name: "a third upload", before: used, change: |store| store.upload(haproxy(), "the third") },
    Case { name: "a shorter upload", before: used, change: |store| store.upload(haproxy(), "3") },
    Case { name: "back to the first upload", before: used, change: |store| store.upload(haproxy(), "one") },
    Case { name: "the same upload", before: used, change: |store| store.upload(haproxy(), "two") },
    Case { name: "an upload of a stopped listener", before: used, change: |store| store.upload(Original::Lvs(id("u")), "the second") },
    Case { name: "an upload of VRRP", before: used, change: |store| store.upload(Original::Vrrp, "the second") },
    Case { name: "a load balancer is removed", before: used, change: |store| store.removal(&haproxy()) },
    Case { name: "a stopped listener is removed", before: used, change: |store| store.removal(&Original::Lvs(id("u"))) },
    Case { name: "VRRP is removed", before: used, change: |store| store.removal(&Original::Vrrp) },
    Case { name: "what is not there is removed", before: used, change: |store| store.removal(&Original::Haproxy(id("z"))) },
];

/// After a crash at any point the next start finds the state before the change or after it; and another
/// crash, while it mends that, makes no difference. The request that comes again is carried out.
#[test]
fn old_or_new() {
    for Case { name, before, change } in CASES {
        let disk = Disk::new();
        before(&mut disk.open().0).unwrap();
        disk.keep("before");
        let old = state(&disk.open().0);
        let mut store = disk.open().0;
        let planned = change(&store).unwrap();
        assert_synced(&planned.steps, name);
        store.carry_out(planned).unwrap();
        let new = state(&store);
        let steps = steps_from(&disk, *change);

        for (taken, torn) in crashes(&steps) {
            let row = format!("{name}, {taken} of {} steps, torn {torn}", steps.len());
            disk.restore("before");
            crash(&steps, taken, torn);
            disk.keep("crashed");
            let (mut store, troubles) = disk.open();
            let found = state(&store);
            assert!(found == old || found == new, "{row}: {found:?}, {troubles:?}");
            let is_cut = 0 < taken && taken < steps.len();
            assert!(is_cut || troubles.is_empty(), "{row}: {troubles:?}");

            store.carry_out(change(&store).unwrap()).unwrap();
            assert_kept(&store, &row);
            assert_eq!(state(&store), new, "{row}, asked again");
            let (store, troubles) = disk.open();
            assert_eq!((state(&store), troubles), (new.clone(), vec![]), "{row}, after all");

            disk.restore("crashed");
            let mending = Start::of(&disk.paths()).unwrap().steps;
            assert_synced(&mending, &row);
            for (taken, torn) in crashes(&mending) {
                disk.restore("crashed");
                crash(&mending, taken, torn);
                let again = state(&disk.open().0);
                assert_eq!(again, found, "{row}, {taken} of {} to mend it", mending.len());
            }
        }
    }
}

/// What fails is like a crash after which the store goes on: with the state before, which any other change
/// brings back to the disk. But a removal may have removed already, and a first upload is taken over.
#[test]
fn failures() {
    for Case { name, before, change } in CASES {
        let disk = Disk::new();
        before(&mut disk.open().0).unwrap();
        disk.keep("before");
        let old = state(&disk.open().0);
        let steps = steps_from(&disk, *change);
        let [is_removal, is_first] = ["removed", "first upload"].map(|word| name.contains(word));
        for taken in 0..=steps.len() {
            let row = format!("{name}, {taken} of {} steps", steps.len());
            disk.restore("before");
            let (mut store, _) = disk.open();
            durable::run(&steps[..taken]).unwrap();
            if !is_removal {
                assert_eq!(state(&store), old, "{row}");
                store.update(|_| ()).unwrap();
                let found = state(&disk.open().0);
                assert!(is_first || found == old, "{row}, another change: {found:?}");
            }
            store.carry_out(change(&store).unwrap()).unwrap();
            assert_kept(&store, &row);
            let (opened, troubles) = disk.open();
            assert_eq!((state(&opened), troubles), (state(&store), vec![]), "{row}, asked again");
        }
    }
}

/// A directory in the way of the document.
#[test]
fn failed() {
    let disk = Disk::new();
    let (mut store, _) = disk.open();
    used(&mut store).unwrap();
    let old = state(&store);
    let in_the_way = disk.paths().document().with_extension("json.new");
    fs::create_dir(&in_the_way).unwrap();
    let error = store.put_haproxy(&id("x"), "three").unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: cannot write: ", in_the_way.display())), "{error}");
    assert_eq!(state(&store), old);
}

/// Everything that a store is asked for.
#[derive(Clone, Debug, PartialEq)]
struct State {
    plugs: Plugs,
    started: Vec<ObjectId>,
    originals: BTreeMap<Original, String>,
}

fn state(store: &Store) -> State {
    let text = |original: &Original| store.original(original).unwrap().unwrap();
    let originals = store.document().originals.keys();
    State {
        plugs: store.document().plugs.clone(),
        started: store.started(),
        originals: originals.map(|original| (original.clone(), text(original))).collect(),
    }
}

/// A load balancer and a stopped listener, VRRP and a plug, each but the last in its second generation.
fn used(store: &mut Store) -> Result<(), Error> {
    for text in ["one", "two"] {
        store.put_haproxy(&id("x"), text)?;
        store.put_lvs(&id("u"), text)?;
        store.put_vrrp(text)?;
    }
    store.put_certificate(
        &id("x"),
        &CertificateName::try_from("a.pem".to_owned()).unwrap(),
        b"",
    )?;
    store.note_stopped(&id("u"), true)?;
    store.update(|document| document.plugs.rules = Some(vec![]))
}

fn plug(store: &Store) -> Result<Change, Error> {
    store.edit(|document| document.plugs.vip = Some(of_mtu(1450)))
}

fn haproxy() -> Original {
    Original::Haproxy(id("x"))
}

fn id(text: &str) -> ObjectId {
    text.to_owned().try_into().unwrap()
}

/// The one before is the one that the document proves.
fn assert_kept(store: &Store, row: &str) {
    for (original, proof) in &store.document().originals {
        let kept = durable::read(&last(&original.path(&store.paths))).unwrap();
        let sha256 = kept.map(|content| sha256_hex(&content));
        assert_eq!(sha256, proof.before_sha256, "{row}, before {original}");
    }
}

/// What a crash might undo is synced by the very next step, so that a crash leaves what the first of the
/// steps did, and nothing else.
fn assert_synced(steps: &[Step], row: &str) {
    for (at, step) in steps.iter().enumerate() {
        let changed = match step {
            Step::Link { to: path, .. }
            | Step::Rename { to: path, .. }
            | Step::Remove { path }
            | Step::RemoveTree { path } => path,
            Step::MakeDirectory { .. } | Step::Write { .. } | Step::Sync { .. } => continue,
        };
        let directory = changed.parent().unwrap().to_owned();
        assert_eq!(steps.get(at + 1), Some(&Step::Sync { directory }), "{row}, step {at}");
    }
}

/// How many steps were taken, and whether the next one was a file half written.
fn crashes(steps: &[Step]) -> Vec<(usize, bool)> {
    let torn = |at: &usize| matches!(steps.get(*at), Some(Step::Write { .. }));
    let whole = (0..=steps.len()).map(|taken| (taken, false));
    whole.chain((0..steps.len()).filter(torn).map(|taken| (taken, true))).collect()
}

fn crash(steps: &[Step], taken: usize, torn: bool) {
    durable::run(&steps[..taken]).unwrap();
    if let (true, Some(Step::Write { path, content, .. })) = (torn, steps.get(taken)) {
        fs::write(path, &content[..content.len() / 2]).unwrap();
    }
}

fn steps_from(disk: &Disk, change: fn(&Store) -> Result<Change, Error>) -> Vec<Step> {
    disk.restore("before");
    change(&disk.open().0).unwrap().steps
}

/// A directory that can be brought back to how it was: the steps have its path in them.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        // Where there is one, a disk that syncs at once: of the thousands of starts none needs a real one.
        let disk = Self(TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap());
        fs::create_dir(disk.paths().base()).unwrap();
        disk
    }

    fn paths(&self) -> Paths {
        Paths::new(self.0.path().join("base"), self.0.path().join("base/certs"))
    }

    fn open(&self) -> (Store, Vec<super::Trouble>) {
        Store::open(self.paths()).unwrap()
    }

    fn keep(&self, name: &str) {
        copy(self.paths().base(), &self.0.path().join(name));
    }

    fn restore(&self, name: &str) {
        copy(&self.0.path().join(name), self.paths().base());
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
