//! Credentials from the usual places: variables of the process first, then the profile files of
//! AWS, then what the machine or its orchestrator hands out, which `object_store` asks for itself.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The variables that name credentials, as the caller's process has them. Their values are secret
/// and never shown.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// Keeps what the providers' own tools look at.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let known = |(name, _): &(String, String)| {
            name == "HOME"
                || ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix))
        };
        Self(variables.into_iter().filter(known).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The variables of a provider, their names in small letters as its settings are.
    pub(super) fn with_prefix(
        &self,
        prefix: &'static str,
    ) -> impl Iterator<Item = (String, &str)> + '_ {
        let wanted = self
            .0
            .iter()
            .filter(move |(name, value)| name.starts_with(prefix) && !value.is_empty());
        wanted.map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What the profile files of AWS say, where the variables do not.
#[derive(Default)]
pub(super) struct Profile {
    pub(super) keys: Option<Keys>,
    pub(super) region: Option<String>,
}

pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) token: Option<String>,
}

/// Variables that say where credentials come from before any file is asked.
const NO_PROFILE: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

impl Profile {
    /// The profile `AWS_PROFILE`, or `default`, of the credentials and the configuration file.
    /// One that is named and nowhere to be found is an error.
    pub(super) fn find(environment: &Environment) -> Result<Self, String> {
        let named = environment.get("AWS_PROFILE");
        let name = named.unwrap_or("default");
        let credentials = file(environment, "AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
        let config = file(environment, "AWS_CONFIG_FILE", "config")?;
        let section = match name {
            "default" => name.to_owned(),
            _ => format!("profile {name}"),
        };
        let (credentials, config) = (values(&credentials, name), values(&config, &section));
        if let (Some(name), None, None) = (named, &credentials, &config) {
            return Err(format!("the profile `{name}` of `AWS_PROFILE` is in none of its files"));
        }
        let (credentials, config) = (credentials.unwrap_or_default(), config.unwrap_or_default());
        let value = |key| credentials.get(key).or_else(|| config.get(key)).cloned();
        let by_variable = NO_PROFILE.iter().any(|name| environment.get(name).is_some());
        let keys = match (value("aws_access_key_id"), value("aws_secret_access_key")) {
            (Some(id), Some(secret)) if !by_variable => {
                Some(Keys { id, secret, token: value("aws_session_token") })
            }
            _ => None,
        };
        let by_variable = ["AWS_REGION", "AWS_DEFAULT_REGION"];
        let by_variable = by_variable.iter().any(|name| environment.get(name).is_some());
        let region = value("region").filter(|_| !by_variable);
        Ok(Self { keys, region })
    }
}

/// The text of a file of AWS, empty where there is none.
fn file(environment: &Environment, variable: &str, name: &str) -> Result<String, String> {
    let in_home = || environment.get("HOME").map(|home| Path::new(home).join(".aws").join(name));
    let Some(path) = environment.get(variable).map(PathBuf::from).or_else(in_home) else {
        return Ok(String::new());
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(format!("read the credentials file `{}`: {error}", path.display())),
    }
}

/// The assignments in one section of a file of AWS.
fn values(text: &str, section: &str) -> Option<BTreeMap<String, String>> {
    let mut found: Option<BTreeMap<String, String>> = None;
    let mut inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = name.trim() == section;
            if inside {
                found.get_or_insert_default();
            }
        } else if let (true, Some((key, value)), false) =
            // What is indented belongs to a nested table; `#` and `;` begin comments.
            (inside, trimmed.split_once('='), line.starts_with([' ', '\t', '#', ';']))
        {
            let key = key.trim().to_ascii_lowercase();
            found.get_or_insert_default().insert(key, value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::test_directory;

    const CREDENTIALS: &str = "
# a comment = with a sign
[default]
aws_access_key_id = ID
aws_secret_access_key=SE=CRET
[other]
aws_access_key_id = OTHER
aws_secret_access_key = S
aws_session_token = T
";
    const CONFIG: &str = "
[default]
region = eu-west-1
s3 =
  addressing_style = path
[profile other]
region = eu-north-1
";

    fn environment(home: &Path, more: &[(&str, &str)]) -> Environment {
        let home = [("HOME", home.to_str().unwrap())];
        let all = home.iter().chain(more);
        Environment::new(all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn home() -> tempfile::TempDir {
        let home = test_directory();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        std::fs::write(home.path().join(".aws/config"), CONFIG).unwrap();
        home
    }

    #[test]
    fn profiles_give_keys_and_region_where_variables_do_not() {
        let home = home();
        let found = Profile::find(&environment(home.path(), &[])).unwrap();
        let keys = found.keys.unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.as_str(), keys.token), ("ID", "SE=CRET", None));
        assert_eq!(found.region.as_deref(), Some("eu-west-1"));

        let found = Profile::find(&environment(home.path(), &[("AWS_PROFILE", "other")])).unwrap();
        let keys = found.keys.unwrap();
        assert_eq!((keys.id.as_str(), keys.token.as_deref()), ("OTHER", Some("T")));
        assert_eq!(found.region.as_deref(), Some("eu-north-1"));

        let variables = [("AWS_ACCESS_KEY_ID", "X"), ("AWS_REGION", "r")];
        let found = Profile::find(&environment(home.path(), &variables)).unwrap();
        assert!(found.keys.is_none() && found.region.is_none());
    }

    #[test]
    fn a_named_profile_that_is_nowhere_is_an_error_and_no_files_are_none() {
        let home = home();
        let missing = environment(home.path(), &[("AWS_PROFILE", "typo")]);
        let error = Profile::find(&missing).err().unwrap();
        assert!(error.contains("`typo`"), "{error}");
        let nowhere = Profile::find(&environment(&home.path().join("x"), &[])).unwrap();
        assert!(nowhere.keys.is_none() && nowhere.region.is_none());
    }

    #[test]
    fn values_of_variables_are_never_shown() {
        let shown =
            environment(Path::new("/h"), &[("AWS_SECRET_ACCESS_KEY", "hush"), ("PATH", "p")]);
        assert_eq!(format!("{shown:?}"), r#"{"AWS_SECRET_ACCESS_KEY", "HOME"}"#);
    }
}
