//! What a path names (spec §6).
use http::Method;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// A thing that a path names.
#[derive(Debug, PartialEq)]
pub(super) enum Target<'p> {
    Server,
    Live,
    Ready,
    Models,
    Index,
    Model { name: Cow<'p, str>, version: Cow<'p, str>, verb: Verb },
}

/// What is wanted of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verb {
    Metadata,
    Ready,
    Infer,
}

impl Target<'_> {
    /// The methods it takes, as the header `Allow` tells them.
    pub(super) fn allow(&self) -> &'static str {
        match self {
            Target::Index | Target::Model { verb: Verb::Infer, .. } => "POST",
            _ => "GET, HEAD",
        }
    }

    /// Whether it takes this method.
    pub(super) fn takes(&self, method: &Method) -> bool {
        match self.allow() {
            "POST" => method == Method::POST,
            _ => method == Method::GET || method == Method::HEAD,
        }
    }
}

/// The thing that a path names, with or without a slash at its end.
pub(super) fn target(path: &str) -> Option<Target<'_>> {
    let path = path.strip_prefix("/v2")?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if let Some(rest) = path.strip_prefix("/models/") {
        return model(rest);
    }
    match path {
        "" => Some(Target::Server),
        "/health/live" => Some(Target::Live),
        "/health/ready" => Some(Target::Ready),
        "/models" => Some(Target::Models),
        "/repository/index" => Some(Target::Index),
        _ => None,
    }
}

fn model(rest: &str) -> Option<Target<'_>> {
    let (name, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let (version, rest) = match rest.strip_prefix("versions/") {
        // A version that is named is not empty.
        Some(rest) if rest.is_empty() || rest.starts_with('/') => return None,
        Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
        None => ("", rest),
    };
    let verb = match rest {
        "" => Verb::Metadata,
        "ready" => Verb::Ready,
        "infer" => Verb::Infer,
        _ => return None,
    };
    Some(Target::Model { name: decoded(name), version: decoded(version), verb })
}

/// The text of a path segment; `%` with no two hexadecimal digits after it stays as it is.
fn decoded(segment: &str) -> Cow<'_, str> {
    percent_decode_str(segment).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(path: &str) -> (String, String, Verb) {
        match target(path) {
            Some(Target::Model { name, version, verb }) => (name.into_owned(), version.into_owned(), verb),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn a_slash_at_the_end_changes_nothing() {
        for path in ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/m", "/v2/models/m/versions/1/infer", "/v2/repository/index"] {
            assert!(target(path).is_some(), "{path}");
            assert_eq!(target(path), target(&format!("{path}/")), "{path}");
        }
    }

    #[test]
    fn a_model_path_names_model_version_and_verb() {
        assert_eq!(named("/v2/models/m"), ("m".into(), "".into(), Verb::Metadata));
        assert_eq!(named("/v2/models/m/versions/v10"), ("m".into(), "v10".into(), Verb::Metadata));
        assert_eq!(named("/v2/models/m/ready"), ("m".into(), "".into(), Verb::Ready));
        assert_eq!(named("/v2/models/m/versions/3/infer"), ("m".into(), "3".into(), Verb::Infer));
        assert_eq!(named("/v2/models/versions/infer"), ("versions".into(), "".into(), Verb::Infer));
    }

    #[test]
    fn names_are_percent_decoded_once() {
        assert_eq!(named("/v2/models/a%2Fb%2e%2E/infer").0, "a/b..");
        assert_eq!(named("/v2/models/%2541/infer").0, "%41");
        assert_eq!(named("/v2/models/%C3%A9/infer").0, "é");
        assert_eq!(named("/v2/models/%/infer").0, "%");
        assert_eq!(named("/v2/models/%f/infer").0, "%f");
        assert_eq!(named("/v2/models/%ff/infer").0, "\u{fffd}");
    }

    #[test]
    fn other_paths_name_nothing() {
        for path in ["/", "", "/v1/models/m", "/v22", "/v2x", "/v2/health", "/v2//", "/v2/models/m/predict", "/v2/models/m/versions/1/infer/x", "*"] {
            assert_eq!(target(path), None, "{path}");
        }
        for path in ["/v2/models/m/versions", "/v2/models/m/versions/", "/v2/models/m/versions//", "/v2/models/m/versions//ready"] {
            assert_eq!(target(path), None, "{path}");
        }
    }
}
