//! Layers of settings: defaults < file < environment < flags.
//!
//! Two stages. Parse: each source becomes a list of assignments (key, value, origin), and a key
//! that no setting has is an error naming the nearest one. Resolve: assignments go over the
//! defaults in order, each checked alone, so that an error names the very place it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Settings;

/// What the environment variables of the product begin with; `__` separates section and key.
pub const ENVIRONMENT_PREFIX: &str = "BRAID__";

/// Where settings are taken from. Nothing is read that is not listed here.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A settings file that must exist.
    pub file: Option<PathBuf>,
    /// The environment, as `std::env::vars` gives it; other variables are passed over.
    pub environment: Vec<(String, String)>,
    /// (dotted key, text, the flag's name as people type it).
    pub flags: Vec<(String, String, &'static str)>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("read settings file `{}`: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("settings file `{}` is not TOML: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("unknown setting `{key}` ({origin}){}", nearest_hint(nearest.as_deref()))]
    Unknown { key: String, origin: Origin, nearest: Option<String> },
    #[error("setting `{key}` ({origin}): {message}")]
    Value { key: String, origin: Origin, message: String },
    #[error("setting `{key}`: {message}")]
    Rule { key: &'static str, message: String },
    #[error(transparent)]
    Lts(#[from] lts::SettingError),
}

fn nearest_hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None => "; `braid config show` lists the known ones".to_owned(),
    }
}

/// Settings with the origin of each value.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub settings: Settings,
    entries: Vec<Entry>,
}

/// One setting as resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// `section.key`.
    pub key: String,
    /// As TOML writes it.
    pub value: String,
    pub origin: Origin,
}

impl Resolved {
    /// Every setting in the order of its sections' names.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The settings as a file that gives the same ones.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.settings).expect("settings are plain tables")
    }
}

struct Assignment {
    key: String,
    value: Value,
    origin: Origin,
}

/// Reads all sources and resolves them.
pub fn resolve(sources: &Sources) -> Result<Resolved, SettingsError> {
    let defaults = flatten(&table_of(&Settings::default()));
    let mut assignments = Vec::new();
    if let Some(path) = &sources.file {
        assignments.extend(of_file(path)?);
    }
    assignments.extend(of_environment(&sources.environment));
    assignments.extend(sources.flags.iter().map(|(key, text, flag)| Assignment {
        key: key.clone(),
        value: Value::String(text.clone()),
        origin: Origin::Flag(flag),
    }));
    let mut values: BTreeMap<String, (Value, Origin)> =
        defaults.into_iter().map(|(key, value)| (key, (value, Origin::Default))).collect();
    for assignment in assignments {
        let (key, value) = checked(&values, &assignment)?;
        values.insert(key, (value, assignment.origin));
    }
    finish(values)
}

fn finish(values: BTreeMap<String, (Value, Origin)>) -> Result<Resolved, SettingsError> {
    let table = nest(values.iter().map(|(key, (value, _))| (key.as_str(), value.clone())));
    let settings: Settings = table.try_into().expect("each value was checked alone");
    settings.check()?;
    let entries = values
        .into_iter()
        .map(|(key, (value, origin))| Entry { key, value: value.to_string(), origin })
        .collect();
    Ok(Resolved { settings, entries })
}

/// The assignment's value in the setting's own type, or what is wrong with it.
fn checked(
    values: &BTreeMap<String, (Value, Origin)>,
    assignment: &Assignment,
) -> Result<(String, Value), SettingsError> {
    let Assignment { key, value, origin } = assignment;
    let Some((present, _)) = values.get(key) else {
        let nearest = nearest(key, values.keys());
        return Err(SettingsError::Unknown { key: key.clone(), origin: origin.clone(), nearest });
    };
    let refused = |message: String| SettingsError::Value {
        key: key.clone(),
        origin: origin.clone(),
        message,
    };
    let value = match origin {
        Origin::Environment(_) | Origin::Flag(_) => typed(value, present).map_err(refused)?,
        Origin::Default | Origin::File(_) => value.clone(),
    };
    let defaults = flatten(&table_of(&Settings::default()));
    let alone = nest(defaults.iter().map(|(name, default)| {
        (name.as_str(), if name == key { value.clone() } else { default.clone() })
    }));
    match alone.try_into::<Settings>() {
        Ok(_) => Ok((key.clone(), value)),
        Err(error) => Err(refused(error.message().trim_end().to_owned())),
    }
}

/// Text from the environment or a flag, in the type that the setting has.
fn typed(text: &Value, present: &Value) -> Result<Value, String> {
    let Value::String(text) = text else { return Ok(text.clone()) };
    match present {
        Value::Boolean(_) => match text.as_str() {
            "true" | "1" => Ok(Value::Boolean(true)),
            "false" | "0" => Ok(Value::Boolean(false)),
            _ => Err(format!("`{text}` is neither `true` nor `false`")),
        },
        Value::Integer(_) => {
            text.parse().map(Value::Integer).map_err(|_| format!("`{text}` is not a whole number"))
        }
        _ => Ok(Value::String(text.clone())),
    }
}

fn of_file(path: &Path) -> Result<Vec<Assignment>, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| SettingsError::Syntax {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })?;
    let origin = Origin::File(path.to_owned());
    let assignments = flatten(&table).into_iter();
    Ok(assignments.map(|(key, value)| Assignment { key, value, origin: origin.clone() }).collect())
}

fn of_environment(environment: &[(String, String)]) -> Vec<Assignment> {
    let mut found: Vec<_> = environment
        .iter()
        .filter_map(|(name, text)| {
            let key = name.strip_prefix(ENVIRONMENT_PREFIX)?;
            Some(Assignment {
                key: key.to_lowercase().replace("__", "."),
                value: Value::String(text.clone()),
                origin: Origin::Environment(name.clone()),
            })
        })
        .collect();
    found.sort_by(|a, b| a.key.cmp(&b.key));
    found
}

/// The known key most like `key`, where one is like it at all.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> Option<String> {
    const LIKENESS_MIN: f64 = 0.75;
    known
        .map(|name| (strsim::jaro_winkler(key, name), name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.clone())
}

fn table_of(settings: &Settings) -> Table {
    Table::try_from(settings).expect("settings are plain tables")
}

/// `section.key` → value. An empty section assigns nothing.
fn flatten(table: &Table) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (section, value) in table {
        match value {
            Value::Table(inner) => {
                flat.extend(flatten(inner).into_iter().map(|(k, v)| (format!("{section}.{k}"), v)));
            }
            value => {
                flat.insert(section.clone(), value.clone());
            }
        }
    }
    flat
}

fn nest<'a>(values: impl Iterator<Item = (&'a str, Value)>) -> Table {
    let mut table = Table::new();
    for (key, value) in values {
        let (section, name) = key.split_once('.').expect("every setting has a section");
        let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        inner.as_table_mut().expect("sections are tables").insert(name.to_owned(), value);
    }
    table
}
