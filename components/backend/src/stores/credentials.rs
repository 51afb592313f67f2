//! Where S3's credentials come from when none are configured.
//!
//! In this order, as in Tempo: `AWS_ACCESS_KEY_ID`/`AWS_SECRET_ACCESS_KEY`;
//! `MINIO_ACCESS_KEY`/`MINIO_SECRET_KEY` or the root user's; the shared credentials file; then, by
//! the object store library, web identity, container and instance metadata.

use std::path::{Path, PathBuf};

use super::Environment;
use crate::{Error, Secret};

/// A pair of keys, maybe with a session's token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StaticCredentials {
    pub(super) access_key: String,
    pub(super) secret_key: Secret,
    pub(super) session_token: Secret,
}

/// The first pair of keys of the chain; none: the machine's identity must do.
pub(super) fn find(environment: Environment<'_>) -> Result<Option<StaticCredentials>, Error> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let first = |names: &[&str]| names.iter().find_map(|name| variable(name));
    let pairs = [
        (
            first(&["AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"]),
            first(&["AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"]),
        ),
        (
            first(&["MINIO_ACCESS_KEY", "MINIO_ROOT_USER"]),
            first(&["MINIO_SECRET_KEY", "MINIO_ROOT_PASSWORD"]),
        ),
    ];
    for (index, pair) in pairs.into_iter().enumerate() {
        if let (Some(access_key), Some(secret_key)) = pair {
            let session_token = match index {
                0 => variable("AWS_SESSION_TOKEN").unwrap_or_default(),
                _ => String::new(),
            };
            return Ok(Some(StaticCredentials {
                access_key,
                secret_key: Secret::new(secret_key),
                session_token: Secret::new(session_token),
            }));
        }
    }
    from_file(environment)
}

fn from_file(environment: Environment<'_>) -> Result<Option<StaticCredentials>, Error> {
    let path = match environment("AWS_SHARED_CREDENTIALS_FILE") {
        Some(path) => PathBuf::from(path),
        None => match environment("HOME") {
            Some(home) => Path::new(&home).join(".aws/credentials"),
            None => return Ok(None),
        },
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Error::config(
                "AWS_SHARED_CREDENTIALS_FILE",
                format!("'{}' cannot be read: {error}", path.display()),
            ));
        }
    };
    let profile = environment("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
    Ok(parse_profile(&text, &profile))
}

/// The keys of one profile of a shared credentials file.
fn parse_profile(text: &str, profile: &str) -> Option<StaticCredentials> {
    let mut in_profile = false;
    let (mut access_key, mut secret_key, mut session_token) = (None, None, String::new());
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            in_profile = name.trim() == profile;
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| in_profile) else {
            continue;
        };
        let value = value.trim().to_owned();
        match key.trim() {
            "aws_access_key_id" => access_key = Some(value),
            "aws_secret_access_key" => secret_key = Some(value),
            "aws_session_token" => session_token = value,
            _ => {}
        }
    }
    Some(StaticCredentials {
        access_key: access_key?,
        secret_key: Secret::new(secret_key?),
        session_token: Secret::new(session_token),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn find_in(variables: &[(&str, &str)]) -> Option<StaticCredentials> {
        let variables: HashMap<String, String> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        find(&|name| variables.get(name).cloned()).unwrap()
    }

    fn keys(access_key: &str, secret_key: &str, session_token: &str) -> StaticCredentials {
        StaticCredentials {
            access_key: access_key.to_owned(),
            secret_key: Secret::new(secret_key),
            session_token: Secret::new(session_token),
        }
    }

    #[test]
    fn the_chain_is_followed_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("credentials");
        std::fs::write(
            &file,
            "# comment\n[other]\naws_access_key_id = o\naws_secret_access_key = p\n\
             [default]\naws_access_key_id=f\naws_secret_access_key = g=h\naws_session_token=t\n",
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let path = ("AWS_SHARED_CREDENTIALS_FILE", file);
        let minio = [("MINIO_ACCESS_KEY", "m"), ("MINIO_SECRET_KEY", "n"), path];
        assert_eq!(
            find_in(&[
                ("AWS_ACCESS_KEY_ID", "a"),
                ("AWS_SECRET_ACCESS_KEY", "b"),
                ("AWS_SESSION_TOKEN", "c"),
                minio[0],
                minio[1],
            ]),
            Some(keys("a", "b", "c"))
        );
        assert_eq!(find_in(&minio), Some(keys("m", "n", "")));
        assert_eq!(find_in(&[path]), Some(keys("f", "g=h", "t")));
        assert_eq!(
            find_in(&[path, ("AWS_PROFILE", "other")]),
            Some(keys("o", "p", ""))
        );
        assert_eq!(find_in(&[path, ("AWS_PROFILE", "absent")]), None);
        assert_eq!(find_in(&[("AWS_SHARED_CREDENTIALS_FILE", "/absent")]), None);
        assert_eq!(find_in(&[]), None);
    }
}
