use std::path::Path;

use super::*;
use crate::settings::Auto;

fn plan(limit: ByteSize) -> MemoryPlan {
    MemoryPlan::new(&Settings::default(), limit).unwrap()
}

fn mebibytes(plan: &MemoryPlan) -> Vec<u64> {
    plan.shares().iter().map(|(_, bytes)| bytes.bytes() >> 20).collect()
}

#[test]
fn a_large_machine_and_the_smallest_are_split_as_the_table_says() {
    assert_eq!(mebibytes(&plan(ByteSize::gib(2))), [128, 64, 384, 128, 16, 64, 256, 160, 64, 96]);
    assert_eq!(mebibytes(&plan(ByteSize::mib(256))), [16, 32, 32, 32, 16, 16, 32, 30, 8, 16]);
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    for share in &SHARES {
        let row = format!("| {}/128 | {} |", share.parts, share.least);
        let line = format!("| `{}` ", share.class.as_str());
        let told = manual.lines().any(|of| of.starts_with(&line) && of.contains(&row));
        assert!(told, "the manual has no row `{line}… {row}`");
    }
}

#[test]
fn every_limit_holds_its_shares_with_room_to_spare() {
    for mib in (256..=8_192).step_by(64) {
        let plan = plan(ByteSize::mib(mib));
        assert!(plan.total() <= plan.limit.bytes() / 100 * SHARED_PERCENT, "{mib}");
        for share in &SHARES {
            assert!(plan.share(share.class) >= share.least, "{mib}");
        }
    }
}

#[test]
fn a_share_that_is_set_stands_and_objects_give_way_to_it() {
    let mut settings = Settings::default();
    settings.memory.limit = Auto(Some(ByteSize::gib(1)));
    settings.cache.tail = Auto(Some(ByteSize::mib(440)));
    let plan = MemoryPlan::new(&settings, ByteSize::gib(2)).unwrap();
    assert_eq!(plan.limit, ByteSize::gib(1));
    assert_eq!(plan.share(MemoryClass::Tail), ByteSize::mib(440));
    let objects = plan.share(MemoryClass::Objects);
    assert!(objects >= ByteSize::mib(32) && objects < ByteSize::mib(192), "{objects}");
    settings.cache.tail = Auto(Some(ByteSize::mib(900)));
    let error = MemoryPlan::new(&settings, ByteSize::gib(2)).unwrap_err().to_string();
    for part in ["`memory.limit`", "1GiB", "tail 900MiB", "`cache.tail`"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_object_must_fit_what_tiering_has() {
    let mut settings = Settings::default();
    settings.tiering.object_bytes = ByteSize::mib(64);
    MemoryPlan::new(&settings, ByteSize::gib(1)).unwrap();
    let error = MemoryPlan::new(&settings, ByteSize::mib(256)).unwrap_err().to_string();
    assert!(error.contains("`tiering.object_bytes`") && error.contains("32MiB"), "{error}");
}

#[test]
fn rounds_that_fit_into_memory_must_empty_a_full_log() {
    let mut settings = Settings::default();
    settings.log.budget = ByteSize::gib(1_024);
    settings.tiering.round_bytes = ByteSize::mib(64);
    MemoryPlan::new(&settings, ByteSize::gib(2)).unwrap();
    MemoryPlan::new(&settings, ByteSize::gib(1)).unwrap_err();
    let error = MemoryPlan::new(&settings, ByteSize::mib(256)).unwrap_err().to_string();
    for part in ["`memory.limit`", "rounds of 32MiB", "`log.file_size`"] {
        assert!(error.contains(part), "{error}");
    }
    settings.lts.url = crate::settings::LtsUrl::Nowhere;
    MemoryPlan::new(&settings, ByteSize::mib(256)).unwrap();
}

/// A machine of files: (path, text).
fn machine(files: &[(&str, &str)]) -> ByteSize {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    default_limit(root.path())
}

const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        3145728 kB\nMemFree: 1 kB\n");

#[test]
fn without_a_control_group_half_of_the_machine_within_bounds_is_taken() {
    assert_eq!(machine(&[MEMINFO]), ByteSize::mib(1_536));
    assert_eq!(machine(&[("proc/meminfo", "MemTotal: 999999999 kB\n")]), ByteSize::gib(2));
    assert_eq!(machine(&[("proc/meminfo", "MemTotal: 100000 kB\n")]), ByteSize::mib(256));
    assert_eq!(machine(&[]), ByteSize::mib(256));
}

#[test]
fn the_smallest_limit_on_the_way_up_counts() {
    let group = ("proc/self/cgroup", "0::/a.slice/b.service\n");
    let leaf = ("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n");
    let above = ("sys/fs/cgroup/a.slice/memory.max", "1073741824\n");
    assert_eq!(machine(&[MEMINFO, group, leaf, above]), ByteSize::mib(512));
    let leaf = (leaf.0, "805306368\n");
    assert_eq!(machine(&[MEMINFO, group, leaf, above]), ByteSize::mib(384));
    assert_eq!(machine(&[MEMINFO, group]), ByteSize::mib(1_536));
}

#[test]
fn the_first_version_of_control_groups_counts_too_also_from_within_a_container() {
    let group = ("proc/self/cgroup", "12:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n");
    let of_host = ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "1073741824\n");
    assert_eq!(machine(&[MEMINFO, group, of_host]), ByteSize::mib(512));
    let of_container = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1610612736\n");
    assert_eq!(machine(&[MEMINFO, group, of_container]), ByteSize::mib(768));
    let none = (of_container.0, "9223372036854771712\n");
    assert_eq!(machine(&[MEMINFO, group, none]), ByteSize::mib(1_536));
    let outside = ("proc/self/cgroup", "0::/../../other\n");
    let unlimited = ("sys/fs/cgroup/memory.max", "1073741824\n");
    assert_eq!(machine(&[MEMINFO, outside, unlimited]), ByteSize::mib(512));
}
