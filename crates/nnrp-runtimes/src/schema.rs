//! Options checked against a runtime's own JSON Schema, for runtimes that say theirs in one.
use crate::options::unknown;
use boon::{CompileError, Compiler, ErrorKind, InstanceLocation, InstanceToken, SchemaIndex, Schemas, SchemeUrlLoader, ValidationError};
use nnrp_core::error::excerpt;
use nnrp_core::plain::{is_unseen, plain};
use nnrp_core::{NnrpError, Reason, Result};
use serde_json::{Map, Value, json};

const PLACE: &str = "nnrp:options";

/// A runtime's options.
pub struct Schema {
    runtime: String,
    known: Vec<String>,
    compiled: Schemas,
    index: SchemaIndex,
}

impl Schema {
    /// The options that a JSON Schema describes: none without one. Those that it does not name are refused, unless it speaks of them itself.
    ///
    /// # Errors
    /// What is wrong with the schema, as a sentence. It may refer to no other document.
    pub fn new(runtime: &str, schema: Option<&Value>) -> std::result::Result<Schema, String> {
        let mut schema = match schema {
            None | Some(Value::Null) => json!({}),
            Some(schema @ Value::Object(_)) => schema.clone(),
            Some(other) => return Err(format!("expected an object, got {}", excerpt(&other.to_string()))),
        };
        if ["additionalProperties", "unevaluatedProperties", "patternProperties"].iter().all(|key| schema.get(key).is_none()) {
            schema["additionalProperties"] = false.into();
        }
        let known: Vec<String> = schema["properties"].as_object().map(|properties| properties.keys().cloned().collect()).unwrap_or_default();
        if let Some(name) = known.iter().find(|name| name.contains(is_unseen)) {
            return Err(format!("expected names without control characters, got '{}'", excerpt(&plain(name))));
        }
        let (mut compiler, mut compiled) = (Compiler::new(), Schemas::new());
        // Without a scheme in it: nothing is fetched.
        compiler.use_loader(Box::new(SchemeUrlLoader::new()));
        let wrong = |error: CompileError| excerpt(&format!("no JSON Schema: {error:#}"));
        compiler.add_resource(PLACE, schema).map_err(wrong)?;
        let index = compiler.compile(PLACE, &mut compiled).map_err(wrong)?;
        Ok(Schema { runtime: runtime.to_owned(), known, compiled, index })
    }

    /// Checks options against a schema, both as JSON.
    ///
    /// # Errors
    /// As [`Schema::check`]; `LOAD_FAILED` when the runtime's schema is none.
    pub fn check_texts(runtime: &str, schema: &str, options: &str) -> Result<()> {
        let schema = serde_json::from_str::<Value>(schema).map_err(|error| error.to_string()).and_then(|schema| Schema::new(runtime, Some(&schema)));
        let failed = |wrong| NnrpError::new(Reason::LoadFailed, format!("runtime {runtime}: info: options: {wrong}")).with("runtime", runtime);
        let options = serde_json::from_str(options).map_err(|error| NnrpError::new(Reason::InvalidOption, format!("options: {error}")))?;
        schema.map_err(failed)?.check(&options)
    }

    /// Checks a model's options.
    ///
    /// # Errors
    /// `UNKNOWN_OPTION`, `INVALID_OPTION`, with the JSON path.
    pub fn check(&self, options: &Map<String, Value>) -> Result<()> {
        let options = Value::Object(options.clone());
        self.compiled.validate(&options, self.index).map_err(|error| self.wrong(&error))
    }

    #[cold]
    fn wrong(&self, error: &ValidationError<'_, '_>) -> NnrpError {
        let leaf = leaf(error);
        match &leaf.kind {
            ErrorKind::AdditionalProperties { got } if leaf.instance_location.tokens.is_empty() => {
                let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
                unknown(&self.runtime, got.first().map_or("", |name| name), &known)
            }
            kind => {
                let path = path(&leaf.instance_location);
                NnrpError::new(Reason::InvalidOption, format!("{path}: {}", excerpt(&kind.to_string())))
                    .with("path", path)
                    .with("runtime", self.runtime.as_str())
            }
        }
    }
}

/// The first of the innermost errors, which says what is wrong with one value.
fn leaf<'e, 's, 'v>(error: &'e ValidationError<'s, 'v>) -> &'e ValidationError<'s, 'v> {
    error.causes.first().map_or(error, leaf)
}

fn path(location: &InstanceLocation<'_>) -> String {
    let mut path = "options".to_owned();
    for (depth, token) in location.tokens.iter().enumerate() {
        match token {
            InstanceToken::Prop(name) if depth == 0 => path += &format!(".{}", excerpt(name)),
            InstanceToken::Prop(name) => path += &format!("['{}']", excerpt(name)),
            InstanceToken::Item(index) => path += &format!("[{index}]"),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(schema: &Value, options: &Value) -> (String, String) {
        let error = Schema::new("abacus", Some(schema)).unwrap().check(options.as_object().unwrap()).unwrap_err();
        (error.reason().to_owned(), error.message().to_owned())
    }

    #[test]
    fn options_are_refused_with_their_path() {
        let schema = json!({"properties": {"scale": {"type": "number"}, "beads": {"items": {"properties": {"n": {"minimum": 1}}}}}});
        let (reason, message) = refused(&schema, &json!({"scale": "x"}));
        assert!(reason == "INVALID_OPTION" && message.starts_with("options.scale: "), "{message}");
        let (reason, message) = refused(&schema, &json!({"beads": [{"n": 1}, {"n": 0}]}));
        assert!(reason == "INVALID_OPTION" && message.starts_with("options.beads[1]['n']: "), "{message}");
        let (reason, message) = refused(&schema, &json!({"size": 1}));
        assert_eq!((reason.as_str(), message.as_str()), ("UNKNOWN_OPTION", "options: unknown option 'size'; abacus knows scale, beads"));
        assert_eq!(refused(&json!({"required": ["scale"], "properties": {"scale": {}}}), &json!({})).0, "INVALID_OPTION");
    }

    #[test]
    fn without_a_schema_there_are_no_options() {
        let none = Schema::new("abacus", None).unwrap();
        assert!(none.check(&Map::new()).is_ok());
        assert!(none.check(json!({"x": 1}).as_object().unwrap()).unwrap_err().is(Reason::UnknownOption));
        assert!(Schema::new("abacus", Some(&json!({"additionalProperties": true}))).unwrap().check(json!({"x": 1}).as_object().unwrap()).is_ok());
    }

    #[test]
    fn a_schema_that_is_none_or_lies_elsewhere_is_refused() {
        for wrong in
            [json!([]), json!({"type": "objekt"}), json!({"$ref": "http://localhost:1/x"}), json!({"$ref": "file:///etc/hostname"}), json!({"$ref": "x"})]
        {
            assert!(Schema::new("abacus", Some(&wrong)).is_err(), "{wrong}");
        }
    }
}
