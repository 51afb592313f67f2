//! Tokens of OAUTHBEARER: from the settings, a file, or a Unix socket.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use crate::TokenSource;

/// How long a token counts that does not say when it expires. The library asks again when four
/// fifths of it are over.
const ASSUMED_LIFETIME: Duration = Duration::from_secs(300);

/// Longest answer of a token socket, in bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// A token, and when it expires.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) token: String,
    pub(crate) principal: String,
    pub(crate) expires_unix_millis: i64,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("token file or socket '{place}': {source}")]
    Io { place: String, source: io::Error },
    #[error("token socket '{place}' answered '{answer}' instead of 200")]
    Refused { place: String, answer: String },
    #[error("'{place}' does not hold {{\"token\": \"…\"}}: {source}")]
    Json {
        place: String,
        source: serde_json::Error,
    },
    #[error("'{place}' asks for an authorization id or SASL extensions, which are not supported")]
    Unsupported { place: String },
    #[error("the token of '{place}' is empty")]
    Empty { place: String },
}

#[derive(Deserialize)]
struct Document {
    token: String,
    #[serde(default)]
    zid: String,
    #[serde(default)]
    extensions: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Claims {
    exp: Option<f64>,
    sub: Option<String>,
}

/// Fetches a token. Blocks.
pub(crate) fn fetch(source: &TokenSource) -> Result<Token, TokenError> {
    let (place, token) = match source {
        TokenSource::Static { token } => ("the settings".to_owned(), token.clone()),
        TokenSource::File(path) => {
            let place = path.display().to_string();
            let json = fs::read(path).map_err(|source| TokenError::Io {
                place: place.clone(),
                source,
            })?;
            let token = parse(&place, &json)?;
            (place, token)
        }
        TokenSource::Socket { path, timeout } => {
            let place = path.display().to_string();
            let json = ask(&place, *timeout)?;
            let token = parse(&place, &json)?;
            (place, token)
        }
    };
    if token.is_empty() {
        return Err(TokenError::Empty { place });
    }
    let claims = claims(&token);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let expires_unix_millis = match claims.exp {
        Some(seconds) => (seconds * 1000.0) as i64,
        None => i64::try_from((now + ASSUMED_LIFETIME).as_millis()).unwrap_or(i64::MAX),
    };
    Ok(Token {
        principal: claims.sub.unwrap_or_else(|| "tempo".to_owned()),
        token,
        expires_unix_millis,
    })
}

fn parse(place: &str, json: &[u8]) -> Result<String, TokenError> {
    let document: Document = serde_json::from_slice(json).map_err(|source| TokenError::Json {
        place: place.to_owned(),
        source,
    })?;
    if !document.zid.is_empty() || document.extensions.is_some_and(|all| !all.is_empty()) {
        return Err(TokenError::Unsupported {
            place: place.to_owned(),
        });
    }
    Ok(document.token)
}

/// What a JSON web token says of itself; nothing of a token of another kind.
fn claims(token: &str) -> Claims {
    token
        .split('.')
        .nth(1)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok())
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or_default()
}

/// `GET /` over a Unix socket, as HTTP/1.0, so that the answer ends with the connection.
fn ask(place: &str, timeout: Duration) -> Result<Vec<u8>, TokenError> {
    let failed = |source| TokenError::Io {
        place: place.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(place).map_err(failed)?;
    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
    stream.set_write_timeout(Some(timeout)).map_err(failed)?;
    stream
        .write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .map_err(failed)?;
    let mut answer = Vec::new();
    stream
        .take(MAX_ANSWER_BYTES)
        .read_to_end(&mut answer)
        .map_err(failed)?;
    let line_end = answer
        .iter()
        .position(|&byte| byte == b'\r' || byte == b'\n')
        .unwrap_or(answer.len());
    let line = String::from_utf8_lossy(&answer[..line_end]).into_owned();
    let body = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| answer[at + 4..].to_vec());
    match (line.split(' ').nth(1), body) {
        (Some("200"), Some(body)) => Ok(body),
        _ => Err(TokenError::Refused {
            place: place.to_owned(),
            answer: line,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    /// Header and claims `{"sub":"svc","exp":4102444800}`.
    const JWT: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzdmMiLCJleHAiOjQxMDI0NDQ4MDB9.";

    #[test]
    fn a_web_token_says_who_and_how_long() {
        let token = fetch(&TokenSource::Static {
            token: JWT.to_owned(),
        })
        .unwrap();
        assert_eq!(token.principal, "svc");
        assert_eq!(token.expires_unix_millis, 4_102_444_800_000);
        let opaque = fetch(&TokenSource::Static {
            token: "opaque".to_owned(),
        })
        .unwrap();
        assert_eq!(opaque.principal, "tempo");
    }

    #[test]
    fn a_file_is_read_anew_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let source = TokenSource::File(path.clone());
        assert!(matches!(fetch(&source), Err(TokenError::Io { .. })));
        for token in ["one", "two"] {
            fs::write(&path, format!("{{\"token\":\"{token}\"}}")).unwrap();
            assert_eq!(fetch(&source).unwrap().token, token);
        }
        fs::write(&path, "one").unwrap();
        assert!(matches!(fetch(&source), Err(TokenError::Json { .. })));
        fs::write(&path, r#"{"token":"t","extensions":{"a":"b"}}"#).unwrap();
        assert!(matches!(
            fetch(&source),
            Err(TokenError::Unsupported { .. })
        ));
    }

    #[test]
    fn a_socket_is_asked_over_http() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let answers = [
            "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{\"token\":\"t\"}",
            "HTTP/1.0 500 Broken\r\n\r\n{\"token\":\"t\"}",
        ];
        let server = thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = [0; 256];
                let length = stream.read(&mut asked).unwrap();
                assert!(asked[..length].starts_with(b"GET / HTTP/1.0\r\n"));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let source = TokenSource::Socket {
            path,
            timeout: Duration::from_secs(10),
        };
        assert_eq!(fetch(&source).unwrap().token, "t");
        assert!(matches!(fetch(&source), Err(TokenError::Refused { .. })));
        server.join().unwrap();
    }
}
