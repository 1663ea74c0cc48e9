//! How much memory the machine, or the control group of this process, has.

use std::io;
use std::path::{Path, PathBuf};

use common::ByteSize;

use crate::settings::MEMORY_MIN;

/// The most that a node takes unasked: a store that shares a machine leaves the rest to the page
/// cache and to others.
const DEFAULT_MAX: ByteSize = ByteSize::gib(2);

/// The default of `memory.limit`: half of what there is, within bounds. `root` is `/`.
pub(crate) fn default_limit(root: &Path) -> ByteSize {
    let machine = of_machine(root);
    let group = of_control_groups(root);
    match machine.into_iter().chain(group).min() {
        Some(bytes) => ByteSize(bytes / 2).clamp(MEMORY_MIN, DEFAULT_MAX),
        // Not told: a small machine is assumed.
        None => MEMORY_MIN,
    }
}

/// `MemTotal` of `/proc/meminfo`.
fn of_machine(root: &Path) -> Option<u64> {
    let text = read(&root.join("proc/meminfo"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The smallest limit of the process's control group and of those above it, of both versions: each
/// of them holds.
fn of_control_groups(root: &Path) -> Option<u64> {
    let text = read(&root.join("proc/self/cgroup"))?;
    text.lines().filter_map(|line| of_control_group(root, line)).min()
}

/// By a line of `/proc/self/cgroup`: `hierarchy:controllers:path`.
fn of_control_group(root: &Path, line: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (mount, file) = match hierarchy {
        "0" if controllers.is_empty() => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let mount = root.join(mount);
    // In a container the path may be one of the host that is not there; its own group is then at
    // the mount, which is on the way up.
    let mut folder: PathBuf = path.split('/').filter(|part| !matches!(*part, "" | "..")).collect();
    let mut smallest = None;
    loop {
        // `max`, which is no number, is no limit.
        let limit = read(&mount.join(&folder).join(file)).and_then(|text| text.trim().parse().ok());
        smallest = smallest.into_iter().chain(limit).min();
        if !folder.pop() {
            return smallest;
        }
    }
}

/// What cannot be read tells nothing.
fn read(path: &Path) -> Option<String> {
    let text: io::Result<String> = std::fs::read_to_string(path);
    text.ok()
}
