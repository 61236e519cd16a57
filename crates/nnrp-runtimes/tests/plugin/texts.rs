//! What a plug-in says is text: on one line, and nothing in it moves a terminal's cursor.
use super::{added, compiled, leaving_nothing, load_bad, one_output, told};
use crate::common::{f32s, run};
use nnrp_core::plain::is_unseen;
use nnrp_core::{NnrpError, Reason};
use nnrp_runtimes::plugin::Plugin;
use serde_json::{Value, json};

/// Every text in a value, and every name.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.iter().flat_map(|(name, value)| [vec![name.clone()], texts(value)].concat()).collect(),
        _ => vec![],
    }
}

fn is_plain(value: &Value) {
    for text in texts(value) {
        assert!(!text.contains(is_unseen), "{text:?}");
    }
}

#[test]
fn a_failure_is_told_on_one_line_and_without_what_controls_a_terminal() {
    leaving_nothing(|| {
        for does in ["paints", "tells_a_path"] {
            let session = load_bad(&told(&one_output(), &json!({})), does).unwrap();
            let error: NnrpError = run(&*session, &[Some(f32s(&[1], &[1.0]))], &[0]).unwrap_err();
            assert!(error.is(Reason::RunFailed));
            is_plain(&error.to_json());
        }
        let session = load_bad(&told(&one_output(), &json!({})), "paints").unwrap();
        let error = run(&*session, &[Some(f32s(&[1], &[1.0]))], &[0]).unwrap_err();
        assert_eq!(error.message(), "runtime bad: ]0;beads  are red  at …");
        assert_eq!(error.details()["bead [2J"], json!(["red blue"]));
    });
}

#[test]
fn what_a_session_tells_of_itself_is_plain_and_a_name_that_is_not_is_refused() {
    let settings = json!({"colour\u{1b}[0m": ["red\nblue", {"deep\r": "\u{9b}2J"}]});
    let painted = json!({"format": "bad\n", "device": "cpu\u{1b}[31m", "precision": "strict", "settings": settings});
    leaving_nothing(|| {
        let session = load_bad(&told(&one_output(), &painted), "").unwrap();
        is_plain(&session.info().told());
        assert_eq!((session.info().format.as_str(), session.info().device.as_str()), ("bad ", "cpu [31m"));
        assert_eq!(session.info().settings["colour [0m"], json!(["red blue", {"deep ": " 2J"}]));
        let named = json!([{"name": "y\u{1b}[31m", "datatype": "FP32", "shape": [-1]}]);
        let error = load_bad(&told(&named, &json!({})), "").err().unwrap();
        assert_eq!(error.message(), "runtime bad: session_info: outputs[0]: name: expected 1 to 256 bytes without control characters, got 'y [31m'");
    });
}

#[test]
fn what_a_plug_in_tells_of_itself_is_plain_and_what_an_option_may_be_stays() {
    let option = r#"\"end\": {\"enum\": [\"\\n\", \"\\r\"], \"description\": \"red\\u001b[31m\\nblue\"}"#;
    let info = r#""{\"version\": \"9\\u001b[1m\", \"formats\": [\"bad\\r\"], \"devices\": [\"cpu\\n\"], \"options\": {\"properties\": {OPTION}}}""#;
    let info = info.replace("OPTION", option);
    let painted = compiled("painted", "plugins/bad.c", &["-DBREAK=table->name = \"painted\"", &format!("-DINFO={info}")]);
    let about = added(&[painted]).unwrap().get("painted").unwrap().info();
    assert_eq!((about.version, about.formats, about.devices), ("9 [1m".into(), vec!["bad ".into()], vec!["cpu ".into()]));
    let end = &about.options["properties"]["end"];
    assert_eq!((&end["enum"], &end["description"]), (&json!(["\n", "\r"]), &json!("red [31m blue")));
    let named = r#""{\"options\": {\"properties\": {\"end\\u001b[1m\": {}}}}""#;
    let error = Plugin::open(&compiled("named", "plugins/bad.c", &[&format!("-DINFO={named}")])).err().unwrap();
    assert_eq!(error.message(), "runtime bad: info: options: expected names without control characters, got 'end [1m'");
}
