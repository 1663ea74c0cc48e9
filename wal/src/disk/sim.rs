//! A disk in memory with the crash semantics of a real one, deterministic from its generator.
//!
//! A crash strikes in the middle of an operation: of a write, each sector is lost, torn or kept;
//! of the names changed since the last `sync_dir`, each change is lost or kept. After
//! [`SimDisk::restart`] the survivors are what the next process finds, and handles of the old one
//! are dead. A disk that lies about durability ([`SimDisk::lie`]) does the same to every write
//! since the file's last `sync`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::Rng;

use super::{Disk, DiskFile, DiskLock, DiskSpace, SECTOR_BYTES, check_aligned};

type Sector = Box<[u8; SECTOR_BYTES]>;

/// What becomes of changes that were under way, or not synced, at a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CrashOutcome {
    /// None of them happened.
    Lost,
    /// All of them happened, though nobody was told.
    Kept,
    /// Each sector and each name on its own: lost, torn or kept.
    #[default]
    Random,
}

/// See the module. Cloning shares the disk.
#[derive(Debug, Clone)]
pub struct SimDisk {
    machine: Arc<Mutex<Machine>>,
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: usize,
    boot: u64,
}

struct SimLock {
    disk: SimDisk,
    boot: u64,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    length: u64,
    /// Sectors that are not all zero.
    sectors: BTreeMap<u64, Sector>,
    /// The durable images of sectors written by a lying disk since the last sync.
    unsynced: BTreeMap<u64, Option<Sector>>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Create { name: String, inode: usize },
    Rename { from: String, to: String },
    Remove { name: String },
}

#[derive(Debug, Clone)]
struct Machine {
    rng: Rng,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending: VecDeque<NameChange>,
    capacity: u64,
    operations: u64,
    bytes_read: u64,
    crash_at: Option<u64>,
    outcome: CrashOutcome,
    crashed: bool,
    lying: bool,
    locked: bool,
    /// Raised by each restart: handles of an earlier boot are dead.
    boot: u64,
}

impl SimDisk {
    pub fn new(rng: Rng) -> Self {
        let machine = Machine {
            rng,
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: VecDeque::new(),
            capacity: u64::MAX,
            operations: 0,
            bytes_read: 0,
            crash_at: None,
            outcome: CrashOutcome::default(),
            crashed: false,
            lying: false,
            locked: false,
            boot: 0,
        };
        Self { machine: Arc::new(Mutex::new(machine)) }
    }

    /// An independent copy of the disk as it is, for trying out more than one future.
    pub fn fork(&self) -> Self {
        Self { machine: Arc::new(Mutex::new(self.machine().clone())) }
    }

    /// A disk that holds `capacity` bytes of files.
    pub fn set_capacity(&self, capacity: u64) {
        self.machine().capacity = capacity;
    }

    /// Operations so far that change something: the crash points.
    pub fn operations(&self) -> u64 {
        self.machine().operations
    }

    /// Bytes that were read so far.
    pub fn bytes_read(&self) -> u64 {
        self.machine().bytes_read
    }

    /// Crashes in the middle of operation number `operation`, counted from 1 over the disk's life.
    pub fn crash_at(&self, operation: u64, outcome: CrashOutcome) {
        let mut machine = self.machine();
        machine.crash_at = Some(operation);
        machine.outcome = outcome;
    }

    /// Crashes between two operations.
    pub fn crash(&self, outcome: CrashOutcome) {
        let mut machine = self.machine();
        machine.outcome = outcome;
        machine.crash_now();
    }

    /// Whether the machine is down.
    pub fn crashed(&self) -> bool {
        self.machine().crashed
    }

    /// The machine comes up again, crashing first if it has not: old handles and locks are dead.
    pub fn restart(&self) {
        let mut machine = self.machine();
        if !machine.crashed {
            machine.crash_now();
        }
        machine.crashed = false;
        machine.crash_at = None;
        machine.locked = false;
        machine.boot += 1;
    }

    /// From now on writes say they are durable and are not until the file is synced.
    pub fn lie(&self, lying: bool) {
        self.machine().lying = lying;
    }

    /// Flips one bit of a file at rest.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) {
        let mut machine = self.machine();
        let inode = machine.names[name];
        let sector = machine.inodes[inode].sectors.entry(offset / SECTOR_BYTES as u64);
        let sector = sector.or_insert_with(zeros);
        sector[offset as usize % SECTOR_BYTES] ^= 1 << (bit % 8);
    }

    /// Overwrites a whole sector of a file at rest, as a misdirected write would.
    pub fn replace_sector(&self, name: &str, offset: u64, content: &[u8; SECTOR_BYTES]) {
        let mut machine = self.machine();
        let inode = machine.names[name];
        let number = offset / SECTOR_BYTES as u64;
        machine.inodes[inode].sectors.insert(number, Box::new(*content));
    }

    /// The bytes of a file at rest.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let machine = self.machine();
        let inode = &machine.inodes[machine.names[name]];
        let mut bytes = vec![0; inode.length as usize];
        for (number, sector) in &inode.sectors {
            let at = *number as usize * SECTOR_BYTES;
            let length = SECTOR_BYTES.min(bytes.len() - at);
            bytes[at..at + length].copy_from_slice(&sector[..length]);
        }
        bytes
    }

    /// Makes a file vanish, as an operator's mistake would.
    pub fn lose_file(&self, name: &str) {
        let mut machine = self.machine();
        machine.names.remove(name);
        machine.durable_names.remove(name);
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn zeros() -> Sector {
    Box::new([0; SECTOR_BYTES])
}

fn down() -> io::Error {
    io::Error::other("the simulated machine has crashed")
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file `{name}`"))
}

impl Machine {
    /// Counts an operation. `Ok(true)` means that the crash strikes in the middle of it.
    fn begin(&mut self) -> io::Result<bool> {
        if self.crashed {
            return Err(down());
        }
        self.operations += 1;
        Ok(self.crash_at == Some(self.operations))
    }

    fn alive(&self, boot: u64) -> io::Result<()> {
        if self.crashed || boot != self.boot { Err(down()) } else { Ok(()) }
    }

    fn keeps(&mut self) -> bool {
        match self.outcome {
            CrashOutcome::Lost => false,
            CrashOutcome::Kept => true,
            CrashOutcome::Random => self.rng.chance(1, 2),
        }
    }

    /// What is left of a sector that was being changed from `old` to `new`.
    fn survivor(&mut self, old: Option<Sector>, new: Option<Sector>) -> Option<Sector> {
        let torn = self.outcome == CrashOutcome::Random && self.rng.chance(1, 3);
        if !torn {
            return if self.keeps() { new } else { old };
        }
        let (old, mut mixed) = (old.unwrap_or_else(zeros), new.unwrap_or_else(zeros));
        for at in (0..SECTOR_BYTES).step_by(512) {
            if self.rng.chance(1, 2) {
                mixed[at..at + 512].copy_from_slice(&old[at..at + 512]);
            }
        }
        Some(mixed)
    }

    fn crash_now(&mut self) {
        self.crashed = true;
        for change in std::mem::take(&mut self.pending) {
            if self.keeps() {
                apply(&mut self.durable_names, &change);
            }
        }
        self.names = self.durable_names.clone();
        for inode in 0..self.inodes.len() {
            for (number, old) in std::mem::take(&mut self.inodes[inode].unsynced) {
                let new = self.inodes[inode].sectors.remove(&number);
                let left = self.survivor(old, new);
                self.inodes[inode].set(number, left);
            }
        }
        let linked: Vec<usize> = self.names.values().copied().collect();
        for (number, inode) in self.inodes.iter_mut().enumerate() {
            if !linked.contains(&number) {
                *inode = Inode::default();
            }
        }
    }

    fn change(&mut self, change: NameChange, strikes: bool) -> io::Result<()> {
        apply(&mut self.names, &change);
        self.pending.push_back(change);
        self.end(strikes)
    }

    fn end(&mut self, strikes: bool) -> io::Result<()> {
        if strikes {
            self.crash_now();
            return Err(down());
        }
        Ok(())
    }

    fn used(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].length).sum()
    }
}

/// Applies a change of names; one whose file is not there (its creation was lost) does nothing.
fn apply(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Create { name, inode } => {
            names.insert(name.clone(), *inode);
        }
        NameChange::Rename { from, to } => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Remove { name } => {
            names.remove(name);
        }
    }
}

impl Inode {
    fn set(&mut self, number: u64, sector: Option<Sector>) {
        match sector.filter(|sector| sector.iter().any(|byte| *byte != 0)) {
            Some(sector) => self.sectors.insert(number, sector),
            None => self.sectors.remove(&number),
        };
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let machine = self.machine();
        machine.alive(machine.boot)?;
        Ok(machine.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let machine = self.machine();
        machine.alive(machine.boot)?;
        let inode = *machine.names.get(name).ok_or_else(|| not_found(name))?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode, boot: machine.boot }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut machine = self.machine();
        let strikes = machine.begin()?;
        if machine.names.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("`{name}` exists")));
        }
        if machine.used() >= machine.capacity {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let inode = machine.inodes.len();
        machine.inodes.push(Inode::default());
        machine.change(NameChange::Create { name: name.to_owned(), inode }, strikes)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode, boot: machine.boot }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut machine = self.machine();
        let strikes = machine.begin()?;
        if !machine.names.contains_key(from) {
            return Err(not_found(from));
        }
        if machine.names.contains_key(to) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("`{to}` exists")));
        }
        let change = NameChange::Rename { from: from.to_owned(), to: to.to_owned() };
        machine.change(change, strikes)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut machine = self.machine();
        let strikes = machine.begin()?;
        if !machine.names.contains_key(name) {
            return Err(not_found(name));
        }
        machine.change(NameChange::Remove { name: name.to_owned() }, strikes)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut machine = self.machine();
        if machine.begin()? {
            return machine.end(true);
        }
        for change in std::mem::take(&mut machine.pending) {
            apply(&mut machine.durable_names, &change);
        }
        Ok(())
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let machine = self.machine();
        machine.alive(machine.boot)?;
        let free = machine.capacity.saturating_sub(machine.used());
        Ok(DiskSpace { total: machine.capacity, free })
    }

    fn lock(&self) -> io::Result<DiskLock> {
        let mut machine = self.machine();
        machine.alive(machine.boot)?;
        if machine.locked {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "the simulated log directory is in use",
            ));
        }
        machine.locked = true;
        Ok(Box::new(SimLock { disk: self.clone(), boot: machine.boot }))
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut machine = self.disk.machine();
        if machine.boot == self.boot {
            machine.locked = false;
        }
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let machine = self.disk.machine();
        machine.alive(self.boot)?;
        Ok(machine.inodes[self.inode].length)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        check_aligned(offset, into);
        let mut machine = self.disk.machine();
        machine.alive(self.boot)?;
        machine.bytes_read += into.len() as u64;
        let inode = &machine.inodes[self.inode];
        if offset + into.len() as u64 > inode.length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let first = offset / SECTOR_BYTES as u64;
        for (at, chunk) in into.chunks_mut(SECTOR_BYTES).enumerate() {
            match inode.sectors.get(&(first + at as u64)) {
                Some(sector) => chunk.copy_from_slice(&sector[..]),
                None => chunk.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        check_aligned(offset, from);
        let mut machine = self.disk.machine();
        machine.alive(self.boot)?;
        let strikes = machine.begin()?;
        let end = offset + from.len() as u64;
        let growth = end.saturating_sub(machine.inodes[self.inode].length);
        if growth > 0 && machine.used().saturating_add(growth) > machine.capacity {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let (first, lying) = (offset / SECTOR_BYTES as u64, machine.lying);
        for (at, chunk) in from.chunks(SECTOR_BYTES).enumerate() {
            let number = first + at as u64;
            let mut new = chunk.iter().any(|byte| *byte != 0).then(zeros);
            if let Some(sector) = &mut new {
                sector.copy_from_slice(chunk);
            }
            let old = machine.inodes[self.inode].sectors.remove(&number);
            if lying {
                let durable = old.clone();
                machine.inodes[self.inode].unsynced.entry(number).or_insert(durable);
            }
            let left = if strikes { machine.survivor(old, new) } else { new };
            machine.inodes[self.inode].set(number, left);
        }
        if !strikes || machine.keeps() {
            let inode = &mut machine.inodes[self.inode];
            inode.length = inode.length.max(end);
        }
        machine.end(strikes)
    }

    fn sync(&self) -> io::Result<()> {
        let mut machine = self.disk.machine();
        machine.alive(self.boot)?;
        if machine.begin()? {
            return machine.end(true);
        }
        machine.inodes[self.inode].unsynced.clear();
        Ok(())
    }
}
