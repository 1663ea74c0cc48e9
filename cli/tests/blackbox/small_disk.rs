//! A small file system of a test's own, which it can fill: ext4 on a loop device where the machine
//! lets this user mount one, else tmpfs in a user namespace, which an ordinary user may have.
//!
//! It is mounted in a namespace that a process holds; when that process ends, for whatever reason,
//! mount and device go with it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{Running, temp_dir};

pub struct SmallDisk {
    // Ends before its folder is removed.
    holder: Running,
    kind: Kind,
    mount: PathBuf,
    _dir: TempDir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ext4,
    Tmpfs,
}

/// Past the capture of test output, which hides what a test says that passes.
fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

impl SmallDisk {
    /// `None`, said on standard error, where neither kind is allowed.
    pub fn new(mib: u64) -> Option<SmallDisk> {
        for kind in [Kind::Ext4, Kind::Tmpfs] {
            match Self::mounted(kind, mib) {
                Ok(disk) => return Some(disk),
                Err(why) => say(&format!("no {kind:?} file system for a test: {why}")),
            }
        }
        say("A TEST DID NOT RUN: it needs a file system that it can fill");
        None
    }

    fn mounted(kind: Kind, mib: u64) -> Result<SmallDisk, String> {
        let dir = temp_dir();
        let (image, mount) = (dir.path().join("image"), dir.path().join("disk"));
        std::fs::create_dir(&mount).unwrap();
        let mut unshare = Command::new("unshare");
        let script = match kind {
            Kind::Ext4 => {
                File::create(&image).unwrap().set_len(mib << 20).unwrap();
                unshare.args(["--mount", "--propagation", "private"]);
                "PATH=$PATH:/usr/sbin:/sbin; mkfs.ext4 -q -F -m 0 $1 && mount -o loop $1 $2"
            }
            Kind::Tmpfs => {
                unshare.args(["--user", "--map-root-user", "--mount"]);
                "mount -t tmpfs -o size=$3m none $2"
            }
        };
        // Holds the namespace until its input ends.
        let script = format!("{script} && echo ready && exec cat");
        unshare.args(["sh", "-c", &script, "sh"]).arg(&image).arg(&mount).arg(mib.to_string());
        let holder = Running::spawn(&mut unshare);
        if holder.line().as_deref() != Some("ready") {
            return Err(holder.finish().stderr);
        }
        Ok(SmallDisk { holder, kind, mount, _dir: dir })
    }

    /// Where it is, for processes that [`Self::enter`]ed.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Where this process finds it.
    pub fn outside(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.holder.id());
        Path::new(&root).join(self.mount.strip_prefix("/").unwrap())
    }

    /// Whether a server must be told to trust it.
    pub fn is_volatile(&self) -> bool {
        self.kind == Kind::Tmpfs
    }

    /// A command that runs where the file system is.
    pub fn enter(&self, program: &str) -> Command {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.holder.id().to_string(), "--mount"]);
        if self.kind == Kind::Tmpfs {
            enter.args(["--user", "--preserve-credentials"]);
        }
        enter.arg("--").arg(program);
        enter
    }

    /// Whether it could be made read-only, or writable again; not while somebody writes to it.
    pub fn remount(&self, read_only: bool) -> bool {
        let mut mount = self.enter("mount");
        let mode = if read_only { "ro" } else { "rw" };
        mount.args(["-o", &format!("remount,{mode}")]).arg(&self.mount);
        Running::spawn(&mut mount).finish().code == Some(0)
    }

    /// Takes every byte that is left; they come back when it is [`empty`](Self::empty) again.
    pub fn fill(&self) -> PathBuf {
        let path = self.outside().join("filler");
        let mut file = File::create(&path).unwrap();
        let mut bytes = vec![7; 1 << 20];
        while !bytes.is_empty() {
            match file.write(&bytes) {
                Ok(_) => {}
                // The last bytes go in smaller pieces.
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    bytes.truncate(bytes.len() / 2);
                }
                Err(error) => panic!("{error}"),
            }
        }
        file.sync_all().unwrap();
        path
    }

    /// Gives back what [`fill`](Self::fill) took.
    pub fn empty(&self) {
        std::fs::remove_file(self.outside().join("filler")).unwrap();
    }
}
