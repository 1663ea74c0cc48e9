//! What of a group's objects nobody refers to.

use common::{Incarnation, WallTime};
use lts::bucket::PAGE_OBJECTS_MAX;
use lts::{Listed, ObjectName, ObjectPath};

use super::{CheckSettings, Finding, GroupReport};
use crate::archive::Archive;
use crate::restore::Chain;
use crate::tiering::{Storage, StorageFailure};

/// Goes through the group's objects page by page.
pub(super) fn look(
    storage: &Storage,
    archive: &Archive,
    chain: &Chain,
    settings: CheckSettings,
    report: &mut GroupReport,
) -> Result<(), StorageFailure> {
    let newest =
        storage.marker().map_or_else(|| archive.incarnation(), |marker| marker.incarnation);
    let adopted = storage.adopted(newest)?;
    let judge = Judge { archive, chain, newest, adopted, settings };
    for incarnation in 1..=newest.0 {
        let prefix = ObjectName::group_prefix(Incarnation(incarnation), report.group);
        let mut after: Option<ObjectPath> = None;
        loop {
            let (bucket, prefix, from) = (storage.bucket.clone(), prefix.clone(), after.take());
            let page = storage.run(async move {
                bucket.list(&prefix, from.as_ref(), PAGE_OBJECTS_MAX).await
            })??;
            judge.page(&page.objects, report);
            match page.objects.last() {
                Some(last) if page.more => after = Some(last.path.clone()),
                _ => break,
            }
        }
    }
    Ok(())
}

struct Judge<'a> {
    archive: &'a Archive,
    chain: &'a Chain,
    /// The incarnation that owns the bucket.
    newest: Incarnation,
    /// Whether it may delete what earlier ones put.
    adopted: bool,
    settings: CheckSettings,
}

impl Judge<'_> {
    fn page(&self, objects: &[Listed], report: &mut GroupReport) {
        let name = |listed: &Listed| listed.path.as_str().parse::<ObjectName>().ok();
        let named: Vec<(ObjectName, &Listed)> =
            objects.iter().filter_map(|listed| Some((name(listed)?, listed))).collect();
        let (Some((first, _)), Some((last, _))) = (named.first(), named.last()) else { return };
        let known = self.archive.names_between(*first, *last);
        for (name, listed) in named.iter().filter(|(name, _)| !known.contains(name)) {
            self.unknown(*name, listed, report);
        }
    }

    fn unknown(&self, name: ObjectName, listed: &Listed, report: &mut GroupReport) {
        if !self.is_decided(name) {
            report.open += 1;
        } else if name.incarnation < self.newest && !self.adopted {
            report.kept_back += 1;
        } else if self.is_old(listed.modified) {
            report.orphans.push(name);
            report.findings.push(Finding {
                subject: name.to_string(),
                what: format!("nobody refers to it ({} bytes)", listed.length),
                advice: "a running server deletes it within the hour; or use `--delete-orphans`",
            });
        }
    }

    /// Whether no entry that is not archived yet can name it: such an entry is of the last archived
    /// one's term or a later one, and names only objects of its own.
    fn is_decided(&self, name: ObjectName) -> bool {
        let tip = self.chain.footers.last().expect("a chain has a tip");
        (name.incarnation, name.term) < (tip.reference.name.incarnation, tip.last_term())
    }

    fn is_old(&self, modified: WallTime) -> bool {
        modified.plus(self.settings.grace) <= self.settings.now
    }
}
