//! A disk that does what it is told to do wrong: delays, errors, short writes, flipped bits,
//! stalls. It wraps any other and keeps its laws wherever no fault is planned.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{AlignedBuf, Disk, DiskFile, DiskLock, DiskSpace};

/// The operations that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskOperation {
    Create,
    Rename,
    Remove,
    SyncDir,
    Read,
    Write,
    Sync,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails without having happened.
    Error(io::ErrorKind),
    /// A write stores only this many bytes, whole sectors, and fails.
    ShortWrite(usize),
    /// A read returns, or a write stores, this bit (counted over the range) flipped.
    FlipBit(u64),
    /// The operation takes longer.
    Delay(Duration),
    /// The operation waits until [`Faults::release`].
    Stall,
}

#[derive(Debug)]
struct Planned {
    operation: DiskOperation,
    name_prefix: String,
    /// Matching operations to let pass first.
    skip: u64,
    fault: Fault,
}

#[derive(Debug, Default)]
struct Plan {
    planned: Vec<Planned>,
    /// Name and offset of sectors that cannot be read any more.
    dead: Vec<(String, u64)>,
    stalled: u64,
    struck: u64,
}

type Sleeper = Box<dyn Fn(Duration) + Send + Sync>;

/// The faults of a [`FaultyDisk`]: what is planned and what has struck.
pub struct Faults {
    plan: Mutex<Plan>,
    changed: Condvar,
    sleep: Sleeper,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("plan", &*self.plan()).finish_non_exhaustive()
    }
}

impl Faults {
    /// Plans a fault for the operation on a file whose name starts with `name_prefix`, after
    /// `skip` matching ones have passed. It strikes once.
    pub fn plan_fault(&self, operation: DiskOperation, name_prefix: &str, skip: u64, fault: Fault) {
        let name_prefix = name_prefix.to_owned();
        self.plan().planned.push(Planned { operation, name_prefix, skip, fault });
    }

    /// From now on every read that covers `offset` of the file fails, as a medium does.
    pub fn kill_sector(&self, name: &str, offset: u64) {
        self.plan().dead.push((name.to_owned(), offset));
    }

    /// Lets stalled operations go on.
    pub fn release(&self) {
        self.plan().stalled = 0;
        self.changed.notify_all();
    }

    /// How many faults have struck.
    pub fn struck(&self) -> u64 {
        self.plan().struck
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, operation: DiskOperation, name: &str) -> Option<Fault> {
        let mut plan = self.plan();
        let mut due = None;
        for (at, planned) in plan.planned.iter_mut().enumerate() {
            if planned.operation != operation || !name.starts_with(&planned.name_prefix) {
                continue;
            }
            if planned.skip == 0 {
                due.get_or_insert(at);
            } else {
                planned.skip -= 1;
            }
        }
        let fault = plan.planned.remove(due?).fault;
        plan.struck += 1;
        Some(fault)
    }

    fn is_dead(&self, name: &str, offset: u64, length: usize) -> bool {
        let covered = offset..offset + length as u64;
        self.plan().dead.iter().any(|(of, at)| of == name && covered.contains(at))
    }

    /// Suffers delays and stalls; returns what the operation itself must act out.
    fn suffer(&self, operation: DiskOperation, name: &str) -> Option<Fault> {
        match self.take(operation, name)? {
            Fault::Delay(time) => (self.sleep)(time),
            Fault::Stall => self.stall(),
            fault => return Some(fault),
        }
        None
    }

    fn stall(&self) {
        let mut plan = self.plan();
        plan.stalled += 1;
        while plan.stalled > 0 {
            plan = self.changed.wait(plan).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn fail(&self, operation: DiskOperation, name: &str) -> io::Result<()> {
        match self.suffer(operation, name) {
            Some(Fault::Error(kind)) => Err(planned(kind)),
            Some(Fault::ShortWrite(_)) => Err(planned(io::ErrorKind::WriteZero)),
            _ => Ok(()),
        }
    }
}

fn planned(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, "a planned fault")
}

/// See the module.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct FaultyFile {
    inner: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
    /// The name it was opened under: renames do not change which faults it meets.
    name: String,
}

impl FaultyDisk {
    /// Wraps `inner`; `sleep` is how time passes in a delay (a manual clock's `advance`, say).
    pub fn new(inner: Arc<dyn Disk>, sleep: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        let faults = Faults {
            plan: Mutex::new(Plan::default()),
            changed: Condvar::new(),
            sleep: Box::new(sleep),
        };
        Self { inner, faults: Arc::new(faults) }
    }

    pub fn faults(&self) -> Arc<Faults> {
        self.faults.clone()
    }

    fn wrap(&self, inner: Arc<dyn DiskFile>, name: &str) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile { inner, faults: self.faults.clone(), name: name.to_owned() })
    }
}

impl Disk for FaultyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(self.inner.open(name)?, name))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.faults.fail(DiskOperation::Create, name)?;
        Ok(self.wrap(self.inner.create(name)?, name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.faults.fail(DiskOperation::Rename, from)?;
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.faults.fail(DiskOperation::Remove, name)?;
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.faults.fail(DiskOperation::SyncDir, "")?;
        self.inner.sync_dir()
    }

    fn space(&self) -> io::Result<DiskSpace> {
        self.inner.space()
    }

    fn lock(&self) -> io::Result<DiskLock> {
        self.inner.lock()
    }
}

fn flip(bytes: &mut [u8], bit: u64) {
    let bits = bytes.len() as u64 * 8;
    if bits > 0 {
        let bit = bit % bits;
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

impl DiskFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let fault = self.faults.suffer(DiskOperation::Read, &self.name);
        if let Some(Fault::Error(kind)) = fault {
            return Err(planned(kind));
        }
        if self.faults.is_dead(&self.name, offset, into.len()) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.inner.read_at(offset, into)?;
        if let Some(Fault::FlipBit(bit)) = fault {
            flip(into, bit);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        match self.faults.suffer(DiskOperation::Write, &self.name) {
            Some(Fault::Error(kind)) => Err(planned(kind)),
            Some(Fault::ShortWrite(bytes)) => {
                let whole = bytes.min(from.len()) / super::SECTOR_BYTES * super::SECTOR_BYTES;
                self.inner.write_at(offset, &from[..whole])?;
                Err(planned(io::ErrorKind::WriteZero))
            }
            Some(Fault::FlipBit(bit)) => {
                let mut changed = AlignedBuf::zeroed(from.len());
                changed[..from.len()].copy_from_slice(from);
                flip(&mut changed[..from.len()], bit);
                self.inner.write_at(offset, &changed[..from.len()])
            }
            _ => self.inner.write_at(offset, from),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.fail(DiskOperation::Sync, &self.name)?;
        self.inner.sync()
    }
}
