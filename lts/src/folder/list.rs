//! Listing a folder as a store lists: all files below it, in order of their whole paths, in pages.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use common::WallTime;

use crate::{Listed, ObjectPath, Page};

pub(super) fn page(
    root: &Path,
    prefix: &str,
    after: Option<&ObjectPath>,
    limit: usize,
) -> io::Result<Page> {
    let mut walk =
        Walk { root, prefix, after: after.map(ObjectPath::as_str), limit, page: Page::default() };
    walk.folder("")?;
    Ok(walk.page)
}

pub(super) fn modified(metadata: &Metadata) -> WallTime {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    WallTime(since.map_or(0, |time| time.as_micros() as u64))
}

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: Option<&'a str>,
    limit: usize,
    page: Page,
}

impl Walk<'_> {
    /// Goes through the folder at `path`, which is empty for the root and else ends with `/`.
    /// `Break`, as `false`, once there is more than the page takes.
    fn folder(&mut self, path: &str) -> io::Result<bool> {
        for name in self.names(path)? {
            let full = format!("{path}{name}");
            let go_on = match full.ends_with('/') {
                true => self.folder(&full)?,
                false => self.file(&full)?,
            };
            if !go_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The names in a folder that may lead to what is wanted; a folder's ends with `/`, so that
    /// they sort as the paths below them do.
    fn names(&self, path: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.root.join(path)) {
            // It went meanwhile, and what was in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_empty() => {
                return Ok(Vec::new());
            }
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(mut name) = entry.file_name().into_string() else { continue };
            // Staging files, and what is not ours.
            if name.parse::<ObjectPath>().is_err() {
                continue;
            }
            if entry.file_type()?.is_dir() {
                name.push('/');
            }
            if self.wanted(&format!("{path}{name}")) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn wanted(&self, full: &str) -> bool {
        let folder = full.ends_with('/');
        let in_prefix = full.starts_with(self.prefix) || folder && self.prefix.starts_with(full);
        let behind = |after| full > after || folder && str::starts_with(after, full);
        in_prefix && self.after.is_none_or(behind)
    }

    fn file(&mut self, full: &str) -> io::Result<bool> {
        let Ok(path) = full.parse::<ObjectPath>() else { return Ok(true) };
        if self.page.objects.len() == self.limit {
            self.page.more = true;
            return Ok(false);
        }
        match fs::symlink_metadata(self.root.join(full)) {
            Ok(found) if found.is_file() => {
                let listed = Listed { path, length: found.len(), modified: modified(&found) };
                self.page.objects.push(listed);
                Ok(true)
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}
