//! The page's files, in the binary.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// What the page may do: use what this server serves, and nothing else. The empty icon is a `data:` URL.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asset {
    /// Where it is.
    pub(crate) path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

/// Every file of the page.
pub(crate) const ASSETS: [Asset; 4] = [
    Asset {
        path: "/",
        content_type: "text/html; charset=utf-8",
        bytes: include_bytes!("../../dashboard/dist/index.html"),
    },
    Asset {
        path: "/app.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../dashboard/dist/app.js"),
    },
    Asset {
        path: "/app.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("../../dashboard/dist/app.css"),
    },
    Asset {
        path: "/licenses.txt",
        content_type: "text/plain; charset=utf-8",
        bytes: include_bytes!("../../dashboard/dist/licenses.txt"),
    },
];

impl Asset {
    /// The answer to who asks for it: that nothing changed, if the browser has these very bytes.
    pub(crate) fn answer(self, headers: &HeaderMap) -> Response {
        let tag = self.tag();
        let held = headers.get(header::IF_NONE_MATCH).and_then(|held| held.to_str().ok());
        let is_held = held.is_some_and(|held| held.split(',').any(|held| held.trim() == tag));
        let tag = HeaderValue::from_str(&tag).expect("hexadecimal in quotes");
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(self.content_type)),
            (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            // It is kept, and asked about at each use: what an upgrade changed is seen at once.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::ETAG, tag),
        ];
        if is_held {
            (StatusCode::NOT_MODIFIED, headers).into_response()
        } else {
            (headers, self.bytes).into_response()
        }
    }

    /// Changes with the bytes.
    fn tag(self) -> String {
        let mut hasher = DefaultHasher::new();
        self.bytes.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page that is slow to come is not looked at when it matters.
    const BYTES_MAX: usize = 400_000;

    #[test]
    fn the_page_is_small_and_asks_nobody_else() {
        assert!(ASSETS.iter().map(|asset| asset.bytes.len()).sum::<usize>() < BYTES_MAX);
        let page = String::from_utf8(ASSETS[0].bytes.to_vec()).unwrap();
        for word in ["http:", "https:", "//", "<style", " style=", " onclick", "<script>"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again() {
        let mut headers = HeaderMap::new();
        let first = ASSETS[1].answer(&headers);
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());

        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(ASSETS[1].answer(&headers).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(ASSETS[2].answer(&headers).status(), StatusCode::OK);
    }
}
