//! A bucket looked at without a node: what it holds, whether it is whole, and the little that a
//! person may change in it.
//!
//! It needs no data folder and takes no lock: looking changes nothing, and what is deleted on request
//! is what no running node can need (see [`replica::check`]). A folder is not made where there is
//! none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::ids::{ContainerId, GroupId, Incarnation};
use common::{Clock, LogIndex, Rng, SystemClock, Term};
use controller::ControllerMachine;
use lts::{
    ClusterMarker, ErrorKind, Leftover, ObjectPath, Owner, Payload, Refused, StoreUrl, cluster,
};
use replica::check::{
    CheckSettings, Finding, GroupReport, Observer, Survey, Surveyed, check, delete, survey,
};
use replica::{StorageFailure, TieringSettings, restore, tiering};
use segmentstore::{ContainerMachine, Memory};
use tokio::sync::watch;

use crate::error::ServerError;
use crate::identity::Identity;
use crate::run::credentials_of_process;
use crate::settings::Settings;
use crate::storage::EventLoop;

/// What a mark of adoption says.
const ADOPTED: &str = "nobody needs what earlier incarnations of this cluster refer to\n";

/// A put is given up long before: what is younger than this may belong to one.
const GRACE_TO_DELETE: Duration = Duration::from_secs(10 * 60);

/// A bucket and whose it is.
pub struct Bucket {
    storage: replica::Storage,
    url: StoreUrl,
    /// Why its marker could not be read, though there are objects.
    marker_damage: Option<String>,
}

/// What a check may change.
#[derive(Debug, Clone, Copy)]
pub struct Checking {
    /// Age below which what nobody refers to may be on its way.
    pub grace: Duration,
    /// Remove leftovers of interrupted puts.
    pub repair: bool,
    /// Delete what nobody will ever refer to.
    pub delete_orphans: bool,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    pub groups: Vec<GroupReport>,
    pub findings: Vec<Finding>,
    pub leftovers_removed: usize,
    pub orphans_deleted: usize,
}

impl Bucket {
    /// Opens the bucket that the settings name and reads whose it is.
    pub fn open(settings: &Settings) -> Result<Self, ServerError> {
        let url = settings.lts_url().ok_or(ServerError::NoStorage)?;
        if let StoreUrl::Folder(path) = &url
            && !path.is_dir()
        {
            return Err(ServerError::NoBucket { url });
        }
        let (clock, rng) = (SystemClock::shared(), Rng::from_entropy());
        // Where it lies is the server's concern.
        let store = lts::Settings { allow_volatile: true, ..settings.lts_store() };
        let environment = credentials_of_process();
        let opened = lts::open(&url, &store, &environment, clock.clone(), rng, Arc::new(|_| ()))?;
        let bucket = Arc::new(opened);
        let event_loop = Arc::new(EventLoop::start()?);
        let of_marker = bucket.clone();
        let marker = event_loop.wait(async move { cluster::newest_marker(&*of_marker).await })?;
        let (marker, marker_damage) = match marker {
            Ok(marker) => (marker, None),
            Err(error) if error.kind() == ErrorKind::Damaged => (None, Some(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let owner = marker.map(|marker| Owner::new(bucket.clone(), clock, marker));
        let storage = replica::Storage {
            bucket,
            waiter: event_loop,
            settings: TieringSettings::default(),
            owner: owner.map(Arc::new),
            ready: watch::channel(true).1,
            held: replica::Held::default(),
        };
        let bucket = Self { storage, url, marker_damage };
        if marker.is_none() && bucket.marker_damage.is_none() && bucket.groups()?.is_empty() {
            return Err(ServerError::NoBucket { url: bucket.url });
        }
        Ok(bucket)
    }

    pub fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// Whose the bucket is.
    pub fn marker(&self) -> Option<ClusterMarker> {
        self.storage.marker()
    }

    /// Refuses a bucket that is not, or not any more, that of the cluster of a data folder.
    pub(crate) fn check_owner(&self, identity: &Identity) -> Result<(), ServerError> {
        let marker = identity.lts_marker.map_or(0, |marker| marker.0);
        let (ours, bucket) =
            (ClusterMarker { incarnation: identity.incarnation, marker }, self.url.to_string());
        Err(ServerError::StorageRefused(match self.marker() {
            Some(found) if found == ours => return Ok(()),
            Some(found) if found.incarnation > ours.incarnation => {
                Refused::Superseded { bucket, found, ours }
            }
            Some(found) => Refused::Foreign { bucket, found },
            None => Refused::MarkerMissing { bucket, ours },
        }))
    }

    /// The last entry of a group, and its term, up to which the bucket alone brings it back.
    pub(crate) fn archived_end(
        &self,
        group: GroupId,
    ) -> Result<Option<(LogIndex, Term)>, ServerError> {
        match restore::Chain::salvage(&self.storage, group) {
            Ok(salvaged) => Ok(salvaged.chain.map(|chain| chain.end())),
            Err(restore::RestoreFailure::Nothing) => Ok(None),
            Err(restore::RestoreFailure::Storage(failure)) => Err(failure.into()),
            Err(other) => Err(StorageFailure::Damaged(other.to_string()).into()),
        }
    }

    /// What there is below `prefix`, by group; each page of objects is given to `each`.
    pub fn survey(
        &self,
        prefix: &str,
        each: impl FnMut(&[Surveyed]),
    ) -> Result<BTreeMap<GroupId, Survey>, ServerError> {
        Ok(survey(&self.storage, prefix, each)?)
    }

    /// Checks everything.
    pub fn check(&self, checking: Checking, told: &Observer) -> Result<CheckReport, ServerError> {
        let changes = checking.repair || checking.delete_orphans;
        if changes && checking.grace < GRACE_TO_DELETE {
            return Err(ServerError::GraceShort { least: GRACE_TO_DELETE });
        }
        let mut report = CheckReport::default();
        report.findings.extend(self.marker_finding());
        self.look_after_leftovers(checking, &mut report)?;
        let settings = CheckSettings { grace: checking.grace, now: SystemClock::new().wall() };
        for group in self.groups()? {
            let mut found = self.check_group(group, settings, told)?;
            // Without a marker nobody knows whether it is still the bucket that was looked at.
            let may_delete = checking.delete_orphans && self.storage.owner.is_some();
            if may_delete && !found.orphans.is_empty() {
                delete(&self.storage, &found.orphans)?;
                report.orphans_deleted += found.orphans.len();
                let gone =
                    |subject: &str| found.orphans.iter().any(|name| name.to_string() == subject);
                found.findings.retain(|finding| !gone(&finding.subject));
            }
            report.findings.append(&mut found.findings);
            report.groups.push(found);
        }
        Ok(report)
    }

    /// Lets the cluster that owns the bucket delete what earlier incarnations put. Whether that is
    /// new.
    pub fn adopt(&self) -> Result<(Incarnation, bool), ServerError> {
        let marker =
            self.storage.marker().ok_or_else(|| ServerError::NoBucket { url: self.url.clone() })?;
        let incarnation = marker.incarnation;
        if incarnation.0 <= 1 {
            return Err(ServerError::NothingToAdopt { url: self.url.clone() });
        }
        let path = tiering::adopted_path(incarnation);
        if self.has(path.clone())? {
            return Ok((incarnation, false));
        }
        let bucket = self.storage.bucket.clone();
        self.ask(async move { bucket.put(&path, Payload::from(ADOPTED.to_owned())).await })?;
        Ok((incarnation, true))
    }

    fn has(&self, path: ObjectPath) -> Result<bool, ServerError> {
        let bucket = self.storage.bucket.clone();
        match self.ask(async move { bucket.head(&path).await }) {
            Ok(_) => Ok(true),
            Err(ServerError::Storage(error)) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn ask<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, lts::Error>> + Send + 'static,
    ) -> Result<T, ServerError> {
        Ok(self.storage.ask(work)?)
    }

    fn groups(&self) -> Result<Vec<GroupId>, ServerError> {
        restore::groups(&self.storage).map_err(|failure| match failure {
            restore::RestoreFailure::Storage(failure) => failure.into(),
            other => StorageFailure::Damaged(other.to_string()).into(),
        })
    }

    fn marker_finding(&self) -> Option<Finding> {
        let what = match (&self.marker_damage, self.storage.marker()) {
            (Some(damage), _) => damage.clone(),
            (None, None) => "it is missing, though there are objects of a cluster".to_owned(),
            (None, Some(_)) => return None,
        };
        Some(Finding {
            subject: "the cluster's marker".to_owned(),
            what,
            advice: "restore `cluster-…` from a copy of the bucket; no server starts without it",
        })
    }

    fn check_group(
        &self,
        group: GroupId,
        settings: CheckSettings,
        told: &Observer,
    ) -> Result<GroupReport, ServerError> {
        if group == GroupId::CONTROLLER {
            return Ok(check(&self.storage, group, ControllerMachine::new, settings, told)?);
        }
        let memory = Memory::new(&segmentstore::Settings::default());
        let container = || ContainerMachine::new(ContainerId(group.0), memory.clone());
        Ok(check(&self.storage, group, container, settings, told)?)
    }

    fn look_after_leftovers(
        &self,
        checking: Checking,
        report: &mut CheckReport,
    ) -> Result<(), ServerError> {
        let (bucket, grace) = (self.storage.bucket.clone(), checking.grace);
        let found = self.ask(async move { bucket.leftovers(grace).await })?;
        if checking.repair {
            report.leftovers_removed = found.len();
            let bucket = self.storage.bucket.clone();
            return self.ask(async move { bucket.remove_leftovers(&found).await });
        }
        report.findings.extend(found.iter().map(leftover_finding));
        Ok(())
    }
}

fn leftover_finding(leftover: &Leftover) -> Finding {
    Finding {
        subject: format!("staging file {}", leftover.name),
        what: format!("an interrupted put left it behind ({} bytes)", leftover.length),
        advice: "`braid lts check --repair` removes it",
    }
}
