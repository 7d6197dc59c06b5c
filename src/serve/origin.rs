//! Which pages may connect.

/// From which pages a browser may connect. A request without an `Origin` header does not come from a
/// page, and is let through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OriginPolicy {
    /// Pages of the host that the request is for. The default.
    #[default]
    SameOrigin,
    /// All pages: for a server that authenticates by something else than cookies.
    Any,
    /// Pages of these origins, each as the browser sends it: `https://chat.example.org`.
    List(Vec<String>),
}

impl OriginPolicy {
    /// Whether a request with these headers is let through: the bytes of its `Origin`, and of its `Host`.
    pub fn allows(&self, origin: Option<&[u8]>, host: Option<&[u8]>) -> bool {
        let Some(origin) = origin else { return true };
        let Some(origin) = visible(origin) else { return false };
        match self {
            Self::Any => true,
            Self::List(origins) => origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
            Self::SameOrigin => host.and_then(visible).is_some_and(|host| is_same_origin(origin, host)),
        }
    }
}

/// Compares host and port. The scheme is not known here: TLS may have ended at a proxy.
fn is_same_origin(origin: &str, host: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let bare = |authority| str::strip_suffix(authority, default_port).unwrap_or(authority);
    !authority.is_empty() && bare(host).eq_ignore_ascii_case(bare(authority))
}

/// What a browser writes into these headers.
fn visible(value: &[u8]) -> Option<&str> {
    let is_visible = value.iter().all(|&byte| byte == b'\t' || (byte.is_ascii() && !byte.is_ascii_control()));
    is_visible.then(|| std::str::from_utf8(value).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_same(origin: &str, host: &str) -> bool {
        OriginPolicy::SameOrigin.allows(Some(origin.as_bytes()), Some(host.as_bytes()))
    }

    #[test]
    fn a_page_of_the_same_host_and_port_is_let_through() {
        assert!(is_same("https://example.org", "example.org"));
        assert!(is_same("https://Example.org:443", "example.ORG") && is_same("http://a", "a:80"));
        assert!(is_same("http://[::1]:8080", "[::1]:8080"));
        assert!(!is_same("https://a:80", "a") && !is_same("http://a:8080", "a") && !is_same("http://b", "a"));
        assert!(!is_same("http://", "") && !is_same("null", "null") && !is_same("a", "a"));
        assert!(!OriginPolicy::SameOrigin.allows(Some(b"http://a"), None));
    }

    #[test]
    fn what_is_no_text_is_never_let_through_and_what_is_no_page_always() {
        let list = OriginPolicy::List(vec!["https://a".to_owned()]);
        for policy in [OriginPolicy::SameOrigin, OriginPolicy::Any, list.clone()] {
            assert!(policy.allows(None, None));
            assert!(!policy.allows(Some("https://ä".as_bytes()), Some("ä".as_bytes())));
            assert!(!policy.allows(Some(b"https://a\x7f"), Some(b"a\x7f")));
        }
        assert!(list.allows(Some(b"HTTPS://A"), None) && !list.allows(Some(b"http://a"), Some(b"a")));
        assert!(OriginPolicy::Any.allows(Some(b"null"), None));
    }
}
