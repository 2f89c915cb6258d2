//! Key files: made, written, read.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use data_encoding::BASE64URL_NOPAD;
use overway_tenant::{Jwk, JwkSet, TenantPublicKey};
use ring::rand::{SecureRandom, SystemRandom};

use super::failure::Failure;

/// Mode of a private key's file.
pub(crate) const SECRET: u32 = 0o600;
/// Mode of a public one's.
pub(crate) const PUBLIC: u32 = 0o644;
/// No key, token or set of keys comes near this; it bounds what is read of a wrong file.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Failure::Failed("the operating system gives no random bytes".to_owned()))?;
    Ok(bytes)
}

/// A name that no other token has.
pub(crate) fn random_id() -> Result<String, Failure> {
    Ok(BASE64URL_NOPAD.encode(&random::<16>()?))
}

/// Writes a file that is not there yet.
pub(crate) fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let shown = path.display();
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::Failed(format!(
            "{shown} exists already and is kept as it is: name another file with --out"
        )),
        _ => Failure::Failed(format!("{shown}: cannot write it: {error}")),
    })
}

/// Reads a file of text; `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let wrong = |error: std::io::Error| {
        Failure::Configuration(format!("{}: cannot read it: {error}", path.display()))
    };
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path).map_err(wrong)?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text)
    };
    read.map_err(wrong)?;
    Ok(text)
}

/// What a file holds, or what is wrong with it.
pub(crate) fn parsed<T, E: std::fmt::Display>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, Failure> {
    parse(&read(path)?)
        .map_err(|error| Failure::Configuration(format!("{}: {error}", path.display())))
}

/// The public keys of a file: a JSON Web Key Set, one JSON Web Key, or PEM, whose key gets the name `kid`.
pub(crate) fn public_keys(path: &Path, kid: Option<&str>) -> Result<JwkSet, Failure> {
    parsed(path, |text| read_public_keys(text, kid))
}

fn read_public_keys(text: &str, kid: Option<&str>) -> Result<JwkSet, String> {
    if text.contains("PRIVATE KEY") {
        let error = "this is a private key, which stays with the backend: give the public one, as \
                     `overway tenant keygen` writes beside it, or `openssl pkey -in FILE -pubout`";
        return Err(error.to_owned());
    }
    let mut set = if text.trim_start().starts_with('{') {
        read_json(text)?
    } else {
        let key = TenantPublicKey::from_spki_pem(text).map_err(|error| error.to_string())?;
        JwkSet { keys: vec![key.to_jwk()] }
    };
    match (set.keys.as_mut_slice(), kid) {
        ([], _) => Err("there is no key in it".to_owned()),
        ([key], Some(kid)) => {
            key.kid = Some(kid.to_owned());
            Ok(set)
        }
        (_, Some(_)) => Err("--kid names one key, and there are several in it".to_owned()),
        (keys, None) if keys.iter().any(|key| key.kid.is_none()) => {
            Err("a key in it has no \"kid\": name it with --kid".to_owned())
        }
        (_, None) => Ok(set),
    }
}

fn read_json(text: &str) -> Result<JwkSet, String> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("this is no JSON: {error}"))?;
    let is_set = value.get("keys").is_some();
    let read = if is_set {
        serde_json::from_value(value)
    } else {
        serde_json::from_value::<Jwk>(value).map(|key| JwkSet { keys: vec![key] })
    };
    let wrong =
        |error| format!("this is no public JSON Web Key (RFC 8037) or set of them: {error}");
    read.map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use overway_tenant::TenantKey;

    #[test]
    fn public_keys_are_read_as_pem_key_and_set() {
        let key = TenantKey::from_seed([1; 32]).public();
        let named = key.to_jwk().named(&"a".parse().unwrap());
        let json = serde_json::to_string(&named).unwrap();
        let set = JwkSet { keys: vec![named.clone()] };

        assert_eq!(read_public_keys(&key.to_spki_pem(), Some("a")).as_ref(), Ok(&set));
        assert_eq!(read_public_keys(&json, None).as_ref(), Ok(&set));
        assert_eq!(read_public_keys(&format!("{{\"keys\":[{json}]}}"), None), Ok(set));
        let wrong = |text: &str, kid| read_public_keys(text, kid).unwrap_err();
        assert!(wrong(&key.to_spki_pem(), None).contains("--kid"));
        assert!(wrong(&format!("{{\"keys\":[{json},{json}]}}"), Some("a")).contains("several"));
        assert!(wrong("{\"keys\":[]}", None).contains("no key"));
        assert!(wrong("{\"kty\":\"RSA\"}", None).contains("no public JSON Web Key"));
        let private = TenantKey::from_seed([1; 32]).to_pkcs8_pem();
        assert!(wrong(&private, Some("a")).contains("stays with the backend"));
    }
}
