//! What a token says.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use overway_wire::Class;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::key::{EdgeId, EdgePublicKey};
use crate::name::{NAME_BYTES_MAX, NameError, TEXT_BYTES_MAX, TenantName, TokenId, is_label};

/// Names in a list of a token.
pub const NAMES_MAX: usize = 64;
/// Stands for every name in such a list.
const ANY: &str = "*";

/// What a tenant's backend says of an edge. Times are Unix seconds (RFC 7519 section 2, NumericDate).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Whose edge it is: the claim `tenant`.
    pub tenant: TenantName,
    /// What the tenant calls the edge, for people and for other edges: `sub`, 1 to [`TEXT_BYTES_MAX`] bytes without
    /// control characters.
    pub name: String,
    /// Services that it may use: `services`; none if left out.
    pub services: Names,
    /// Services that it may offer: `offers`; none if left out.
    pub offers: Names,
    /// Classes in which it may send: `classes`, at least one.
    pub classes: BTreeSet<Class>,
    /// When the token was made: `iat`.
    pub issued: u64,
    /// When it begins to hold, if later than that: `nbf`.
    pub not_before: Option<u64>,
    /// When it ends: `exp`.
    pub expires: u64,
    /// By which it can be revoked: `jti`.
    pub id: TokenId,
    /// The key that whoever shows the token must prove to hold: `cnf.jkt`.
    pub edge: EdgeId,
}

/// A list of names, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// These, at most [`NAMES_MAX`].
    Only(BTreeSet<String>),
    /// Every one: a list with `*` in it.
    Any,
}

/// Why claims are not claims that a token can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// No JSON object, or with a member twice.
    #[error("the claims are not a JSON object with each claim once: {0}")]
    Json(String),
    /// A claim is not there.
    #[error("the claim \"{claim}\" is missing; it is {expected}")]
    Missing {
        /// Which.
        claim: &'static str,
        /// What it would be.
        expected: &'static str,
    },
    /// A claim is there and is something else.
    #[error("the claim \"{claim}\" is not {expected}")]
    Not {
        /// Which.
        claim: &'static str,
        /// What it would be.
        expected: &'static str,
    },
    /// A name of the wrong form.
    #[error("the claim \"{claim}\": {reason}")]
    Name {
        /// Which.
        claim: &'static str,
        /// What is wrong.
        reason: NameError,
    },
    /// A service's name of the wrong form.
    #[error(
        "the claim \"{claim}\": {name:?} is no service's name; one is 1 to {NAME_BYTES_MAX} of a-z, 0-9 and hyphen, \
         with no hyphen first, or \"*\" for all"
    )]
    Service {
        /// In which claim.
        claim: &'static str,
        /// What stands there.
        name: String,
    },
    /// Too many names.
    #[error("the claim \"{claim}\" has {count} names; {NAMES_MAX} is the most, or \"*\" for all")]
    Names {
        /// In which claim.
        claim: &'static str,
        /// How many.
        count: usize,
    },
    /// A class that there is not.
    #[error("the claim \"classes\": {0:?} is no class; there are realtime, interactive and bulk")]
    Class(String),
}

/// The claims as they are written; which are there and what they are is looked at one by one, for better messages
/// than a deserializer has. A claim that stands there twice is refused.
#[derive(Deserialize)]
struct RawClaims {
    tenant: Option<Value>,
    sub: Option<Value>,
    services: Option<Value>,
    offers: Option<Value>,
    classes: Option<Value>,
    iat: Option<Value>,
    nbf: Option<Value>,
    exp: Option<Value>,
    jti: Option<Value>,
    cnf: Option<RawConfirmation>,
}

#[derive(Deserialize)]
struct RawConfirmation {
    jkt: Option<Value>,
}

impl Claims {
    /// Reads claims; those that are not known are ignored (RFC 7519 section 4).
    pub fn from_json(json: &[u8]) -> Result<Self, ClaimsError> {
        let raw: RawClaims =
            serde_json::from_slice(json).map_err(|error| ClaimsError::Json(error.to_string()))?;
        let tenant = text("tenant", raw.tenant, "the tenant's name")?;
        let id = text("jti", raw.jti, "a name of this token, such as a UUID")?;
        Ok(Self {
            tenant: tenant
                .parse()
                .map_err(|reason| ClaimsError::Name { claim: "tenant", reason })?,
            name: subject(raw.sub)?,
            services: names("services", raw.services)?,
            offers: names("offers", raw.offers)?,
            classes: classes(raw.classes)?,
            issued: time("iat", raw.iat)?,
            not_before: raw.nbf.map(|nbf| time("nbf", Some(nbf))).transpose()?,
            expires: time("exp", raw.exp)?,
            id: id.parse().map_err(|reason| ClaimsError::Name { claim: "jti", reason })?,
            edge: confirmation(raw.cnf)?,
        })
    }

    /// Writes the claims, each in its place.
    pub fn to_json(&self) -> Vec<u8> {
        let classes: Vec<_> = self.classes.iter().map(|class| class.name()).collect();
        let mut claims = json!({
            "tenant": self.tenant.as_str(),
            "sub": self.name,
            "services": self.services.to_list(),
            "offers": self.offers.to_list(),
            "classes": classes,
            "iat": self.issued,
            "exp": self.expires,
            "jti": self.id.as_str(),
            "cnf": { "jkt": self.edge.to_string() },
        });
        if let Some(not_before) = self.not_before {
            claims["nbf"] = not_before.into();
        }
        claims.to_string().into_bytes()
    }

    /// Whether the token is for whoever holds this key. That it is held must have been proved by a signature.
    pub fn is_for(&self, key: &EdgePublicKey) -> bool {
        key.id() == self.edge
    }

    /// When the token ends.
    pub fn expires_at(&self) -> SystemTime {
        // A time that the clock cannot say is no time until which anything is valid; verification allows none.
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(self.expires))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Names {
    /// No names at all.
    pub const fn none() -> Self {
        Self::Only(BTreeSet::new())
    }

    /// Names given one by one, `*` for all.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: BTreeSet<_> = names.into_iter().map(str::to_owned).collect();
        if names.contains(ANY) { Self::Any } else { Self::Only(names) }
    }

    /// Whether a name is among them.
    pub fn allow(&self, name: &str) -> bool {
        match self {
            Self::Only(names) => names.contains(name),
            Self::Any => true,
        }
    }

    /// The names as a token lists them.
    pub fn to_list(&self) -> Vec<&str> {
        match self {
            Self::Only(names) => names.iter().map(String::as_str).collect(),
            Self::Any => vec![ANY],
        }
    }
}

fn text(
    claim: &'static str,
    value: Option<Value>,
    expected: &'static str,
) -> Result<String, ClaimsError> {
    match value.ok_or(ClaimsError::Missing { claim, expected })? {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(ClaimsError::Not { claim, expected })
        }
    }
}

fn subject(value: Option<Value>) -> Result<String, ClaimsError> {
    let expected = "the edge's name, 1 to 64 bytes without control characters";
    let name = text("sub", value, expected)?;
    let good = (1..=TEXT_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if good { Ok(name) } else { Err(ClaimsError::Not { claim: "sub", expected }) }
}

/// A NumericDate. It may have a fraction, as Python's `time.time()` does; the fraction is dropped.
fn time(claim: &'static str, value: Option<Value>) -> Result<u64, ClaimsError> {
    let expected = "a number of seconds since 1970 (RFC 7519, NumericDate)";
    let value = value.ok_or(ClaimsError::Missing { claim, expected })?;
    let fraction = || Duration::try_from_secs_f64(value.as_f64()?).ok();
    value
        .as_u64()
        .or_else(|| fraction().map(|since| since.as_secs()))
        .ok_or(ClaimsError::Not { claim, expected })
}

fn list(
    claim: &'static str,
    value: Value,
    expected: &'static str,
) -> Result<Vec<String>, ClaimsError> {
    let Value::Array(values) = value else { return Err(ClaimsError::Not { claim, expected }) };
    values.into_iter().map(|value| text(claim, Some(value), expected)).collect()
}

fn names(claim: &'static str, value: Option<Value>) -> Result<Names, ClaimsError> {
    let Some(value) = value else { return Ok(Names::none()) };
    let names = list(claim, value, "a list of services' names, such as [\"chat\"] or [\"*\"]")?;
    if names.len() > NAMES_MAX {
        return Err(ClaimsError::Names { claim, count: names.len() });
    }
    match names.iter().find(|name| *name != ANY && !is_label(name)) {
        Some(name) => Err(ClaimsError::Service { claim, name: name.clone() }),
        None => Ok(Names::of(names.iter().map(String::as_str))),
    }
}

fn classes(value: Option<Value>) -> Result<BTreeSet<Class>, ClaimsError> {
    let (claim, expected) = ("classes", "a list of one or more of realtime, interactive and bulk");
    let value = value.ok_or(ClaimsError::Missing { claim, expected })?;
    let class = |name: String| Class::from_name(&name).ok_or(ClaimsError::Class(name));
    let classes: BTreeSet<_> =
        list(claim, value, expected)?.into_iter().map(class).collect::<Result<_, _>>()?;
    if classes.is_empty() { Err(ClaimsError::Not { claim, expected }) } else { Ok(classes) }
}

fn confirmation(value: Option<RawConfirmation>) -> Result<EdgeId, ClaimsError> {
    let (claim, expected) =
        ("cnf.jkt", "the thumbprint of the edge's key, 43 characters of base64url");
    let jkt = value.and_then(|confirmation| confirmation.jkt);
    let text = text(claim, jkt, expected)?;
    text.parse().map_err(|_| ClaimsError::Not { claim, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"tenant":"acme","sub":"phone 7","services":["chat","mail"],"offers":["*"],
        "classes":["bulk","realtime"],"iat":100,"nbf":110,"exp":200,"jti":"t-1",
        "cnf":{"jkt":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},"more":[1]}"#;

    fn read(json: &str) -> Result<Claims, ClaimsError> {
        Claims::from_json(json.as_bytes())
    }

    fn refusal(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        read(&GOOD.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn claims_are_read_and_written() {
        let claims = read(GOOD).unwrap();

        assert_eq!(claims.tenant.as_str(), "acme");
        assert_eq!(claims.name, "phone 7");
        assert!(claims.services.allow("chat") && !claims.services.allow("video"));
        assert!(claims.offers.allow("anything"));
        assert_eq!(claims.classes, BTreeSet::from([Class::Realtime, Class::Bulk]));
        assert_eq!((claims.issued, claims.not_before, claims.expires), (100, Some(110), 200));
        assert_eq!(Claims::from_json(&claims.to_json()), Ok(claims));
    }

    #[test]
    fn what_need_not_be_said_is_nothing() {
        let fewer = GOOD.replace(r#""services":["chat","mail"],"offers":["*"],"#, "");
        let claims = read(&fewer.replace(r#""nbf":110,"#, "")).unwrap();

        assert_eq!((claims.services, claims.offers), (Names::none(), Names::none()));
        assert_eq!(claims.not_before, None);
    }

    #[test]
    fn a_time_may_have_a_fraction() {
        assert_eq!(read(&GOOD.replace("200", "200.75")).unwrap().expires, 200);
        for odd in ["-1", "1e300", "\"200\"", "null"] {
            let said = refusal("\"exp\":200", &format!("\"exp\":{odd}"));
            assert!(said.contains("\"exp\" is"), "{odd}: {said}");
        }
    }

    #[test]
    fn a_refusal_says_which_claim_is_wrong() {
        for (from, to, said) in [
            ("\"tenant\":\"acme\",", "", "\"tenant\" is missing"),
            ("acme", "Acme", "\"tenant\": a tenant's name is"),
            ("phone 7", "", "\"sub\" is not the edge's name"),
            ("phone 7", "phone\\u0007", "\"sub\" is not the edge's name"),
            ("[\"*\"]", "\"*\"", "\"offers\" is not a list"),
            ("\"chat\"", "\"Chat\"", "\"services\": \"Chat\" is no service's name"),
            ("\"bulk\"", "\"fast\"", "\"fast\" is no class"),
            ("[\"bulk\",\"realtime\"]", "[]", "\"classes\" is not a list of one or more"),
            ("\"iat\":100,", "", "\"iat\" is missing"),
            ("\"t-1\"", "7", "\"jti\" is not a name"),
            ("\"t-1\"", "\"t 1\"", "\"jti\": a token's name"),
            ("\"jkt\"", "\"jwk\"", "\"cnf.jkt\" is missing"),
            ("\"cnf\"", "\"conf\"", "\"cnf.jkt\" is missing"),
            ("kPrK_", "kPrK", "\"cnf.jkt\" is not the thumbprint"),
            ("\"more\":[1]", "\"exp\":900", "duplicate field `exp`"),
            ("{\"tenant\"", "[{\"tenant\"", "not a JSON object"),
        ] {
            let refusal = refusal(from, to);
            assert!(refusal.contains(said), "{from} -> {to}: {refusal}");
        }
    }

    #[test]
    fn a_list_of_names_is_bounded() {
        let list: Vec<_> = (0..=NAMES_MAX).map(|n| format!("\"s{n}\"")).collect();
        let said = refusal("\"chat\",\"mail\"", &list.join(","));
        assert!(said.contains("has 65 names"), "{said}");
    }
}
