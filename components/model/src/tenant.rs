//! Tenant ids: which are valid, and what a `X-Scope-OrgID` header means.

/// The tenant of every request while multi-tenancy is off.
pub const SINGLE_TENANT: &str = "single-tenant";

/// The header (and, in lower case, the gRPC metadata key) that names the tenant.
pub const ORG_ID_HEADER: &str = "X-Scope-OrgID";

/// Longest tenant id, in bytes.
pub const MAX_TENANT_ID_BYTES: usize = 150;

/// Why a header names no valid tenant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TenantError {
    /// No header at all.
    #[error("no org id")]
    Missing,
    /// Longer than [`MAX_TENANT_ID_BYTES`].
    #[error("tenant ID is too long: max {MAX_TENANT_ID_BYTES} characters")]
    TooLong,
    /// A byte outside `a-z A-Z 0-9 ! - _ . * ' ( )`.
    #[error("tenant ID '{tenant}' contains unsupported character '{character}'")]
    UnsupportedCharacter {
        /// The id as it was sent.
        tenant: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// `.` or `..`, which would escape a directory, or nothing at all.
    #[error("tenant ID is '.', '..' or empty")]
    UnsafePath,
    /// Several different ids where one is needed.
    #[error("multiple org IDs present")]
    Multiple,
}

/// Checks one tenant id.
pub fn validate(tenant: &str) -> Result<(), TenantError> {
    if tenant.len() > MAX_TENANT_ID_BYTES {
        return Err(TenantError::TooLong);
    }
    if matches!(tenant, "" | "." | "..") {
        return Err(TenantError::UnsafePath);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c);
    match tenant.chars().find(|&c| !allowed(c)) {
        Some(character) => Err(TenantError::UnsupportedCharacter {
            tenant: tenant.to_owned(),
            character,
        }),
        None => Ok(()),
    }
}

/// The tenants that a header value names: parts between `|`, each without what follows its first
/// `:`, valid, sorted and unique.
pub fn parse_header(value: &str) -> Result<Vec<String>, TenantError> {
    let mut tenants = Vec::new();
    for part in value.split('|') {
        let tenant = part.split(':').next().unwrap_or_default();
        validate(tenant)?;
        tenants.push(tenant.to_owned());
    }
    tenants.sort_unstable();
    tenants.dedup();
    Ok(tenants)
}

/// The one tenant that a header value names; several different ones are an error.
pub fn parse_single(value: &str) -> Result<String, TenantError> {
    let mut tenants = parse_header(value)?;
    match (tenants.pop(), tenants.is_empty()) {
        (Some(tenant), true) => Ok(tenant),
        _ => Err(TenantError::Multiple),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_split_stripped_and_checked() {
        assert_eq!(parse_single("a:k=v"), Ok("a".to_owned()));
        assert_eq!(parse_single("a|a"), Ok("a".to_owned()));
        assert_eq!(parse_single("a|b"), Err(TenantError::Multiple));
        assert_eq!(
            parse_header("b|a"),
            Ok(vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(parse_single(""), Err(TenantError::UnsafePath));
        assert_eq!(parse_single(".."), Err(TenantError::UnsafePath));
        assert!(matches!(
            parse_single("a/b"),
            Err(TenantError::UnsupportedCharacter { character: '/', .. })
        ));
        assert_eq!(parse_single(&"a".repeat(151)), Err(TenantError::TooLong));
    }
}
