//! What a file system keeps, told by its kind.

use std::io;
use std::path::Path;

use rustix::fs::statfs;

/// File systems that keep nothing through a power cut, or promise what another machine must hold.
const VOLATILE: [(u32, &str); 8] = [
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x794c_7630, "overlay"),
    (0x6969, "NFS"),
    (0x6573_5546, "FUSE"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9p"),
];

/// The kind of the file system that `path` is on, where it keeps nothing through a power cut.
pub fn volatile_kind(path: &Path) -> io::Result<Option<&'static str>> {
    let magic = statfs(path)?.f_type as u32;
    Ok(VOLATILE.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_from_a_disk_by_the_kind_of_the_file_system() {
        // `/dev/shm` is a tmpfs wherever there is one.
        let memory = Path::new("/dev/shm");
        if memory.try_exists().unwrap() {
            assert_eq!(volatile_kind(memory).unwrap(), Some("tmpfs"));
        }
        let missing = volatile_kind(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
