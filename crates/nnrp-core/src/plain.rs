//! What others say, before it is told further: a terminal and a log take no more of it than text.
use serde_json::{Map, Value};

/// Whether it moves a terminal's cursor, ends a line of a log or turns a text around.
pub fn is_unseen(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text on one line, with one space in place of each run of what is unseen.
pub fn plain(text: &str) -> String {
    if !text.contains(is_unseen) {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len());
    let mut runs = text.split(is_unseen);
    plain.push_str(runs.next().unwrap_or_default());
    let mut goes_on = false;
    for run in runs {
        if !goes_on {
            plain.push(' ');
        }
        plain.push_str(run);
        goes_on = run.is_empty();
    }
    plain
}

/// The same of every text in a value, the names of its fields too.
pub fn plain_value(value: Value) -> Value {
    match value {
        Value::String(text) => plain(&text).into(),
        Value::Array(items) => items.into_iter().map(plain_value).collect(),
        Value::Object(fields) => plain_fields(fields).into(),
        other => other,
    }
}

/// The same of every text in a value's fields, their names too.
pub fn plain_fields(fields: Map<String, Value>) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (plain(&name), plain_value(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_is_one_line_and_moves_no_cursor() {
        for (text, expected) in [
            ("plain, even ü and 文", "plain, even ü and 文"),
            ("\u{1b}[31mred\u{1b}[0m", " [31mred [0m"),
            ("one\r\n\r\ntwo\n", "one two "),
            ("\0\u{7f}\u{9b}2J", " 2J"),
            ("a\u{202e}b\u{2066}c\u{2028}", "a b c "),
            ("\n", " "),
            ("", ""),
        ] {
            assert_eq!(plain(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_value_is_plain_throughout() {
        let told = json!({"a\nb": ["\u{1b}c", {"d": "e\rf"}], "n": 1.5, "no": null});
        assert_eq!(plain_value(told), json!({"a b": [" c", {"d": "e f"}], "n": 1.5, "no": null}));
    }
}
