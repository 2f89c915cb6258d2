//! Who may change the mesh.
//!
//! | request | no token | the token | another one |
//! | --- | --- | --- | --- |
//! | reads: `GET`, `HEAD` | answered | answered | 401 |
//! | changes, of a program | done, unless `[admin] require_token` is set: 401, but for `/v1/log` and `/v1/reload` | done | 401 |
//! | changes, of a web page | 401 | done | 401 |
//!
//! The token travels as `Authorization: Bearer`, never as a cookie: no page of another origin can have a browser send it
//! along, so that nothing is done in the operator's name that the operator's own page did not ask for. A web page is known by headers that
//! browsers set and pages cannot take away: `Origin` (WHATWG Fetch, section 3.2), which goes with every request that is no `GET`
//! or `HEAD`, or `Sec-Fetch-Site` (W3C Fetch Metadata).

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use overway_pki::AdminToken;

use super::{Admin, Failure};
use crate::api::OperatorBody;

/// What programs need no token for: it is asked of every process alike, and is no change of the mesh.
const OF_EVERY_PROCESS: [&str; 2] = ["/v1/log", "/v1/reload"];

/// Who may change what.
#[derive(Debug)]
pub(crate) struct Gate {
    /// The operator's token.
    pub(crate) token: AdminToken,
    /// Whether programs need it too.
    pub(crate) is_required: bool,
}

/// What a request shows of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// The token.
    Operator,
    /// Something in the token's place.
    Pretender,
    /// Nothing, as a program.
    Program,
    /// Nothing, as a browser does for a page.
    Page,
}

impl Gate {
    fn sender(&self, headers: &HeaderMap) -> Sender {
        if let Some(shown) = headers.get(header::AUTHORIZATION) {
            let token = shown.to_str().ok().and_then(|shown| shown.split_once(' '));
            let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let is_right = token.is_some_and(|(_, token)| self.token.is(token.trim()));
            return if is_right { Sender::Operator } else { Sender::Pretender };
        }
        if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
            Sender::Page
        } else {
            Sender::Program
        }
    }

    /// Why not, if not.
    fn refusal(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<&'static str> {
        let reads = *method == Method::GET || *method == Method::HEAD;
        match self.sender(headers) {
            Sender::Operator => None,
            Sender::Pretender => Some(
                "this is not the admin token: it is in admin.token of the scheduler's state directory",
            ),
            Sender::Program | Sender::Page if reads => None,
            Sender::Program if !self.is_required || OF_EVERY_PROCESS.contains(&path) => None,
            Sender::Program => Some(
                "changes need the admin token here ([admin] require_token): give --admin-token-file or OVERWAY_ADMIN_TOKEN_FILE",
            ),
            Sender::Page => Some("a web page changes nothing without the admin token: sign in"),
        }
    }
}

/// Lets through what may pass.
pub(super) async fn guard(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    match admin.gate.refusal(request.method(), request.uri().path(), request.headers()) {
        None => next.run(request).await,
        Some(why) => {
            let mut response = Failure::new(StatusCode::UNAUTHORIZED, why).into_response();
            // RFC 9110 section 11.6.1 wants the scheme named. Browsers ask for no password by this one.
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            response
        }
    }
}

/// `GET /v1/operator`: whether the token that came along, if one did, is right; a wrong one has not come this far.
pub(super) async fn show(State(admin): State<Admin>, headers: HeaderMap) -> Json<OperatorBody> {
    Json(OperatorBody {
        signed_in: admin.gate.sender(&headers) == Sender::Operator,
        token_required: admin.gate.is_required,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_pki::{ADMIN_TOKEN_FILE, read_admin_token};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |&(name, value): &(&'static str, &str)| {
            (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn may(gate: &Gate, method: &Method, pairs: &[(&'static str, &str)]) -> bool {
        gate.refusal(method, "/v1/drains", &headers(pairs)).is_none()
    }

    #[test]
    fn who_shows_what_may_do_what() {
        let dir = tempfile::tempdir().unwrap();
        let token = AdminToken::load_or_create(dir.path()).unwrap();
        let right = read_admin_token(&dir.path().join(ADMIN_TOKEN_FILE)).unwrap();
        let right = format!("Bearer {right}");
        let open = Gate { token: token.clone(), is_required: false };
        let closed = Gate { token, is_required: true };
        let own_origin = ("origin", "http://127.0.0.1:9400");

        for gate in [&open, &closed] {
            assert!(may(gate, &Method::GET, &[]));
            assert!(may(gate, &Method::HEAD, &[own_origin]));
            assert!(may(gate, &Method::DELETE, &[("authorization", &right), own_origin]));
            assert!(may(gate, &Method::PUT, &[("authorization", &right)]));
            for page in [own_origin, ("origin", "null"), ("sec-fetch-site", "same-origin")] {
                assert!(!may(gate, &Method::PUT, &[page]), "{page:?}");
                assert!(!may(gate, &Method::POST, &[page]), "{page:?}");
                assert!(!may(gate, &Method::OPTIONS, &[page]), "{page:?}");
            }
            let wrong = format!("{right}x");
            for shown in ["", "Bearer", "Bearer ", "Basic YTpi", &right[7..], &wrong] {
                assert!(!may(gate, &Method::GET, &[("authorization", shown)]), "{shown:?}");
                assert!(!may(gate, &Method::PUT, &[("authorization", shown)]), "{shown:?}");
            }
        }
        assert!(may(&open, &Method::PUT, &[]));
        assert!(!may(&closed, &Method::PUT, &[]));
        let log = |pairs: &[_]| closed.refusal(&Method::PUT, "/v1/log", &headers(pairs)).is_none();
        assert!(log(&[]) && !log(&[own_origin]));
    }
}
