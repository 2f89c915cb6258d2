//! Takes secrets out of text: rather too much than too little.
//!
//! 1. Colours of a terminal go, which would come between a name and its value.
//! 2. What lies between `-----BEGIN` and `-----END` goes, whatever it is.
//! 3. What stands before the `@` of a URL's host goes.
//! 4. Behind a name that sounds like a secret (`key`, `token`, `password`, ...) and `=` or `:` the rest of the line goes.
//! 5. Runs of letters, digits, `-`, `_`, `+`, `/` and `=` go that begin as tokens do (`eyJ`, `ovw1-`), or are 32 or more
//!    long and mix cases and digits, or are hexadecimal: keys, signatures, JWTs, hashes.

const GONE: &str = "<redacted>";
/// Below this a run is a word; 32 are 24 bytes in base64, and 16 in hexadecimal.
const RUN_MIN: usize = 32;
const NAMES: [&str; 9] = [
    "key",
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "authorization",
    "cookie",
    "psk",
];

/// The text without what may be secret.
pub(super) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut armoured = false;
    for line in text.split_inclusive('\n') {
        let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
        let body = without_userinfo(&without_colours(body));
        let (begins, ends) = (body.rfind("-----BEGIN"), body.rfind("-----END"));
        if begins.is_some() || armoured {
            if !armoured {
                out.push_str(GONE);
                out.push('\n');
            }
            // Where one block ends another may begin.
            armoured = begins > ends || (begins, ends) == (None, None);
            continue;
        }
        match named_secret(&body) {
            Some(at) => {
                out.push_str(&runs(&body[..at]));
                out.push(' ');
                out.push_str(GONE);
            }
            None => out.push_str(&runs(&body)),
        }
        out.push_str(end);
    }
    out
}

/// Without control sequences (ECMA-48, section 5.4), by which logs are coloured.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let parameters = |c: char| matches!(c, '\x20'..='\x3f');
        out.push_str(part.trim_start_matches(parameters).get(1..).unwrap_or_default());
    }
    out
}

/// Without names and passwords in URLs.
fn without_userinfo(line: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(line.len()), line);
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '<' | '>');
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        out.push_str(before);
        rest = after;
        if let Some(sign) = authority.rfind('@') {
            out.push_str(GONE);
            rest = &after[sign..];
        }
    }
    out + rest
}

/// Where the value of a name that sounds like a secret begins.
fn named_secret(line: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = line[from..].find(['=', ':']).map(|at| from + at) {
        let name = line[..at].trim_end_matches([' ', '"', '\'']);
        let other = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let name = name.rsplit(other).next().unwrap_or_default().to_ascii_lowercase();
        if NAMES.iter().any(|word| name.contains(word)) {
            return Some(at + 1);
        }
        from = at + 1;
    }
    None
}

fn runs(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(begin) = rest.find(is_of_run) {
        let (before, run) = rest.split_at(begin);
        let (run, after) = run.split_at(run.find(|c| !is_of_run(c)).unwrap_or(run.len()));
        out.push_str(before);
        out.push_str(if is_secret(run) { GONE } else { run });
        rest = after;
    }
    out.push_str(rest);
    out
}

fn is_of_run(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '/' | '=')
}

fn is_secret(run: &str) -> bool {
    let has = |sort: fn(&u8) -> bool| run.bytes().any(|byte| sort(&byte));
    let mixed =
        has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
    let hexadecimal = run.bytes().all(|byte| byte.is_ascii_hexdigit());
    run.contains("ovw1-") || run.contains("eyJ") || (run.len() >= RUN_MIN && (mixed || hexadecimal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sounds_or_looks_like_a_secret_goes() {
        for (text, left) in [
            ("psk = \"abc\"", "psk = <redacted>"),
            ("  \"api_token\": \"x\",", "  \"api_token\": <redacted>"),
            ("at 10:15 token=abc", "at 10:15 token= <redacted>"),
            ("sent eyJhbGciOiJFZERTQSJ9.eyJ0Ijo.sig", "sent <redacted>.<redacted>.sig"),
            ("use ovw1-AAAA now", "use <redacted> now"),
            ("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "<redacted>"),
            ("0123456789abcdef0123456789abcdef", "<redacted>"),
            ("\u{2192}token=abc", "\u{2192}token= <redacted>"),
            ("\x1b[3mtoken\x1b[0m\x1b[2m=\x1b[0mabc", "token= <redacted>"),
            ("by http://user:pass@proxy:8080/x", "by http://<redacted>@proxy:8080/x"),
        ] {
            assert_eq!(redact(text), left);
        }
    }

    #[test]
    fn an_armoured_block_goes_whole_even_without_its_end() {
        assert_eq!(redact("a\n-----BEGIN X-----\nb\n-----END X-----\nc\n"), "a\n<redacted>\nc\n");
        assert_eq!(redact("-----BEGIN X-----\nb\n"), "<redacted>\n");
        let two = "-----BEGIN X-----\nb\n-----END X----------BEGIN Y-----\nc\n-----END Y-----\nd\n";
        assert_eq!(redact(two), "<redacted>\nd\n");
    }

    #[test]
    fn names_addresses_and_measurements_stay() {
        for text in [
            "relay = \"frankfurt\"\nlisten = [\"203.0.113.5:4401\", \"[2001:db8::1]:4401\"]\n",
            "overway_relay_frames_dropped_total{reason=\"queue_full\"} 12\n",
            "{\"at_unix_ms\": 1798761599001, \"detail\": \"rome > oslo down\"}\n",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
