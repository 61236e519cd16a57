//! A model's options as they are read: every error names the JSON path.
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Precision, Reason, Result};
use serde_json::Value;
use std::ffi::CString;

/// Keys and values as C takes them.
pub(crate) type Texts = Vec<(CString, CString)>;

/// What a model's description calls a precision.
pub(crate) fn name_of(precision: Precision) -> &'static str {
    match precision {
        Precision::Strict => "strict",
        Precision::Bf16 => "bf16",
        Precision::Fp16 => "fp16",
        Precision::Int8 => "int8",
        Precision::Fast => "fast",
    }
}

/// The error of an option that the runtime does not have.
#[cold]
pub(crate) fn unknown(runtime: &str, option: &str, known: &[&str]) -> NnrpError {
    let got = excerpt(option);
    let message = format!("options: unknown option '{got}'; {runtime} knows {}", known.join(", "));
    NnrpError::new(Reason::UnknownOption, message).with("path", format!("options.{got}")).with("known", known.to_vec())
}

/// A value in the options, and its JSON path.
pub(crate) struct At<'a> {
    pub(crate) path: String,
    pub(crate) value: &'a Value,
}

impl<'a> At<'a> {
    #[cold]
    pub(crate) fn wrong(&self, expected: &str) -> NnrpError {
        let got = excerpt(&self.value.to_string());
        let message = format!("{}: expected {expected}, got {got}", self.path);
        NnrpError::new(Reason::InvalidOption, message).with("path", self.path.clone()).with("expected", expected).with("got", got)
    }

    pub(crate) fn boolean(&self) -> Result<bool> {
        self.value.as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    pub(crate) fn integer(&self, least: i64, most: i64) -> Result<i64> {
        let value = self.value.as_i64().filter(|value| (least..=most).contains(value));
        value.ok_or_else(|| self.wrong(&format!("a whole number from {least} to {most}")))
    }

    pub(crate) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Result<(&'static str, T)> {
        let chosen = choices.iter().find(|(name, _)| self.value.as_str() == Some(name)).copied();
        chosen.ok_or_else(|| self.wrong(&format!("one of {}", choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "))))
    }

    pub(crate) fn children(&self) -> Result<impl Iterator<Item = (&'a String, At<'a>)>> {
        let object = self.value.as_object().ok_or_else(|| self.wrong("an object"))?;
        Ok(object.iter().map(|(key, value)| (key, At { path: format!("{}['{}']", self.path, excerpt(key)), value })))
    }

    pub(crate) fn items(&self) -> Result<impl Iterator<Item = At<'a>>> {
        let list = self.value.as_array().ok_or_else(|| self.wrong("an array"))?;
        Ok(list.iter().enumerate().map(|(index, value)| At { path: format!("{}[{index}]", self.path), value }))
    }

    pub(crate) fn text(&self) -> Result<CString> {
        let text = match self.value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(self.wrong("a string")),
        };
        CString::new(text).map_err(|_| self.wrong("a string without NUL"))
    }

    pub(crate) fn key(&self, key: &str) -> Result<CString> {
        CString::new(key).map_err(|_| self.wrong("a name without NUL"))
    }

    pub(crate) fn texts(&self) -> Result<Texts> {
        self.children()?.map(|(key, child)| Ok((child.key(key)?, child.text()?))).collect()
    }

    pub(crate) fn sizes(&self) -> Result<Vec<(CString, i64)>> {
        self.children()?.map(|(key, child)| Ok((child.key(key)?, child.integer(0, i64::MAX)?))).collect()
    }
}
