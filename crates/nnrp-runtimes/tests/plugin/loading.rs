//! What is wrong with a plug-in's library, table, or documents is an error that names it, and never a crash.
use super::{added, bad, compiled, leaving_nothing, load_bad, one_output, sample, spec, told};
use crate::common::{Scratch, f32s, run};
use nnrp_core::{ModelSpec, NnrpError, Reason, Runtime};
use nnrp_runtimes::plugin::{self, Plugin};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

fn refused(name: &str, words: &[&str]) -> NnrpError {
    let Err(error) = Plugin::open(&compiled(name, "plugins/bad.c", words)) else { panic!("{name} was opened") };
    error
}

fn names_no_path(error: &NnrpError) {
    let all = format!("{} {}", error.message(), Value::Object(error.details().clone()));
    for part in [env!("CARGO_TARGET_TMPDIR"), env!("CARGO_MANIFEST_DIR"), "/tmp", "/usr"] {
        assert!(!all.contains(part), "{all}");
    }
}

#[test]
fn a_table_that_cannot_be_used_is_refused() {
    for (name, words, says) in [
        ("no_entry", "-DENTRY=other", "plug-in 'libno_entry.so': it does not export nnrp_runtime_v1"),
        ("null_table", "-DTABLE=NULL", "plug-in 'libnull_table.so': table: expected a pointer, got NULL"),
        ("odd_table", "-DTABLE=(NnrpRuntimeV1*)1", "plug-in 'libodd_table.so': table: expected a pointer aligned to its type"),
        ("no_size", "-DBREAK=table->struct_size = 0", "plug-in 'libno_size.so': table: expected struct_size to be"),
        ("short", "-DBREAK=table->struct_size = 24", "plug-in 'libshort.so': table: expected struct_size to be"),
        ("endless", "-DBREAK=table->struct_size = SIZE_MAX", "plug-in 'libendless.so': table: expected struct_size of NnrpRuntimeV1 to be"),
        ("major", "-DBREAK=table->abi_version = 2 << 16", "plug-in 'libmajor.so': table: expected ABI 1, got 2"),
        ("no_version", "-DBREAK=table->abi_version = 0", "plug-in 'libno_version.so': table: expected ABI 1, got 0"),
        ("null_name", "-DBREAK=table->name = NULL", "plug-in 'libnull_name.so': table: name: expected text, got NULL"),
        ("empty_name", "-DBREAK=table->name = \"\"", "plug-in 'libempty_name.so': table: name: expected 1 to 64 letters"),
        ("path_name", "-DBREAK=table->name = \"a/b\"", "plug-in 'libpath_name.so': table: name: expected 1 to 64 letters"),
        ("utf8_name", "-DBREAK=table->name = \"\\xff\"", "plug-in 'libutf8_name.so': table: name: expected UTF-8"),
        ("null_info", "-DBREAK=table->info = NULL", "runtime bad: table: info: expected a function, got NULL"),
        ("null_load", "-DBREAK=table->load = NULL", "runtime bad: table: load: expected a function, got NULL"),
        ("null_session_info", "-DBREAK=table->session_info = NULL", "runtime bad: table: session_info: expected a function, got NULL"),
        ("null_run", "-DBREAK=table->run = NULL", "runtime bad: table: run: expected a function, got NULL"),
        ("null_close", "-DBREAK=table->close = NULL", "runtime bad: table: close: expected a function, got NULL"),
    ] {
        let error = refused(name, &[words]);
        assert!(error.is(Reason::RuntimeNotInstalled) && error.message().starts_with(says), "{name}: {error:?}");
        names_no_path(&error);
    }
}

#[test]
fn what_a_plug_in_tells_of_itself_is_checked() {
    for (name, info, says) in [
        ("info_null", "NULL", "runtime bad: info: expected JSON, got NULL"),
        ("info_text", "\"nonsense\"", "runtime bad: info: expected a JSON object"),
        ("info_list", "\"[]\"", "runtime bad: info: expected a JSON object"),
        ("info_utf8", "\"{\\\"version\\\": \\\"\\xff\\\"}\"", "runtime bad: info: expected a JSON object"),
        ("info_version", "\"{\\\"version\\\": 5}\"", "runtime bad: info: invalid type"),
        ("info_formats", "\"{\\\"formats\\\": [5]}\"", "runtime bad: info: invalid type"),
        ("info_schema", "\"{\\\"options\\\": {\\\"type\\\": \\\"objekt\\\"}}\"", "runtime bad: info: options: no JSON Schema"),
        ("info_schema_list", "\"{\\\"options\\\": []}\"", "runtime bad: info: options: expected an object"),
        ("info_fails", "\"!\"", "runtime bad: no beads at …"),
    ] {
        let error = refused(name, &[&format!("-DINFO={info}")]);
        assert!(error.is(Reason::RuntimeNotInstalled) && error.message().starts_with(says), "{name}: {error:?}");
        names_no_path(&error);
    }
}

#[test]
fn a_table_of_a_newer_minor_version_is_taken() {
    let words = ["-DBREAK=table->struct_size = sizeof longer, table->abi_version |= 9, table->name = \"newer\", longer.newer = &longer"];
    let newer = compiled("newer", "plugins/bad.c", &words);
    assert_eq!(added(&[newer]).unwrap().get("newer").unwrap().info().version, "9");
}

#[test]
fn a_file_that_is_no_library_is_refused_by_its_name_alone() {
    let text = Scratch::new("text.so", b"this is no library");
    for path in [text.0.as_path(), Path::new("/no/such/libx.so"), &std::env::temp_dir(), Path::new("")] {
        let Err(error) = Plugin::open(path) else { panic!("{} was opened", path.display()) };
        assert!(error.is(Reason::RuntimeNotInstalled), "{error:?}");
        names_no_path(&error);
    }
}

#[test]
fn a_name_that_is_taken_is_refused_and_the_same_plug_in_twice_is_one() {
    assert_eq!(added(&[sample(), sample()]).unwrap().iter().count(), 1);
    let impostor = compiled("impostor", "plugins/bad.c", &["-DBREAK=table->name = \"sample\""]);
    let error = added(&[sample(), impostor]).err().unwrap();
    assert_eq!((error.reason(), error.message()), ("RUNTIME_NOT_INSTALLED", "runtime sample: its name is another runtime's"));
}

#[test]
fn the_names_of_runtimes_that_come_with_nnrp_are_taken_before_they_are_there() {
    let project = include_str!("../../../../pyproject.toml");
    let (_, group) = project.split_once("[project.entry-points.\"nnrp.runtimes\"]\n").unwrap();
    let mut names: Vec<&str> = group.lines().take_while(|line| !line.is_empty()).map(|line| line.split_once(" = ").unwrap().0).collect();
    names.extend(nnrp_runtimes::NAMES);
    names.sort_unstable();
    assert_eq!(names, nnrp_runtimes::COME_WITH_NNRP);
    let impostor = compiled("tract", "plugins/bad.c", &["-DBREAK=table->name = \"tract\""]);
    let error = added(&[impostor]).err().unwrap();
    assert_eq!((error.reason(), error.message()), ("RUNTIME_NOT_INSTALLED", "runtime tract: its name is another runtime's"));
}

#[test]
fn a_library_that_is_cut_off_is_refused_before_the_system_maps_it() {
    let whole = std::fs::read(sample()).unwrap();
    for length in (0..whole.len() / 2).step_by(251) {
        let cut = Scratch::new("cut.so", &whole[..length]);
        let error = Plugin::open(&cut.0).err().unwrap();
        assert!(error.is(Reason::RuntimeNotInstalled), "{error:?}");
        names_no_path(&error);
    }
    let cut = Scratch::new("cut.so", &whole[..whole.len() / 2]);
    assert!(Plugin::open(&cut.0).err().unwrap().message().ends_with("it is cut off"));
}

#[test]
fn a_session_that_tells_another_device_or_precision_among_its_settings_is_refused() {
    leaving_nothing(|| {
        for (key, other, reason) in [("device", "gpu", Reason::DeviceNotFound), ("precision", "bf16", Reason::NotOffered)] {
            let file = Scratch::new("settings.bad", told(&one_output(), &json!({"settings": {key: other}})).as_bytes());
            let asked = ModelSpec { device: "cpu".into(), ..spec(&file.0, json!({"do": ""})) };
            let error = Plugin::open(&bad()).unwrap().load(&asked).err().unwrap();
            assert!(error.is(reason) && error.details()["got"] == other, "{error:?}");
        }
    });
}

#[test]
fn a_session_that_tells_nonsense_is_closed_and_refused() {
    let x = |field: &str, value: Value| {
        let mut tensor = json!({"name": "x", "datatype": "FP32", "shape": [-1]});
        tensor[field] = value;
        json!({"inputs": [tensor], "outputs": one_output()}).to_string()
    };
    let rows = |shape: Value, symbols: Value| {
        json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "symbols": symbols}], "outputs": one_output()}).to_string()
    };
    let twice = json!({"inputs": [], "outputs": [one_output()[0], one_output()[0]]}).to_string();
    leaving_nothing(|| {
        for (told, says) in [
            ("", "session_info: expected a JSON object"),
            ("[]", "session_info: expected a JSON object"),
            ("{\"inputs\": [", "session_info: expected a JSON object"),
            ("{}", "session_info: missing field `inputs`"),
            (r#"{"inputs": [], "outputs": []}"#, "session_info: outputs: expected at least one"),
            (&x("datatype", json!("FP31")), "session_info: inputs[0]: unknown datatype 'FP31'"),
            (&x("datatype", json!(5)), "session_info: invalid type"),
            (&x("shape", json!([-2])), "session_info: inputs[0]: shape: expected at most 64 dimensions, each -1 or more"),
            (&x("shape", json!(vec![1; 65])), "session_info: inputs[0]: shape: expected at most 64 dimensions"),
            (&x("symbols", json!(["n", "m"])), "session_info: inputs[0]: symbols: expected one for each dimension, 1, got 2"),
            (&rows(json!([-1, 4]), json!(["n"])), "session_info: inputs[0]: symbols: expected one for each dimension, 2, got 1"),
            (&rows(Value::Null, json!(["n"])), "session_info: inputs[0]: symbols: expected one for each dimension, 0, got 1"),
            (&x("name", json!("")), "session_info: inputs[0]: name: expected 1 to 256 bytes"),
            (&x("name", json!("a\0b")), "session_info: inputs[0]: name: expected 1 to 256 bytes"),
            (&twice, "session_info: outputs[1]: name 'y' is there twice"),
        ] {
            let error = load_bad(told, "").err().unwrap();
            assert!(error.is(Reason::LoadFailed) && error.message().starts_with(&format!("runtime bad: {says}")), "{told}: {error:?}");
        }
    });
}

#[test]
fn a_load_that_fails_or_gives_nothing_is_an_error_by_the_plug_ins_name() {
    let good = told(&one_output(), &json!({}));
    leaving_nothing(|| {
        for (does, reason, says) in [
            ("load_gives_nothing", "LOAD_FAILED", "runtime bad: load: expected a session, got NULL"),
            ("load_says_nothing", "LOAD_FAILED", "runtime bad: load failed and said nothing of it"),
            ("load_status_99", "LOAD_FAILED", "runtime bad: ninety-nine"),
            ("load_fails", "INVALID_MODEL", "runtime bad: cannot read …"),
            ("session_info_fails", "LOAD_FAILED", "runtime bad: forgot"),
            ("session_info_is_null", "LOAD_FAILED", "runtime bad: session_info: expected JSON, got NULL"),
        ] {
            let error = load_bad(&good, does).err().unwrap();
            assert_eq!((error.reason(), error.message()), (reason, says));
            assert_eq!(error.details()["runtime"], "bad");
            names_no_path(&error);
        }
    });
}

#[test]
fn a_thousand_loads_and_runs_leave_nothing_behind() {
    let model = Scratch::new("thousand.bad", told(&one_output(), &json!({})).as_bytes());
    let plugin = Plugin::open(&bad()).unwrap();
    leaving_nothing(|| {
        for turn in 0..1_000 {
            let does = ["", "rank_2", "fails_at_last", "no_owner", "load_fails"][turn % 5];
            let Ok(session) = plugin.load(&spec(&model.0, json!({"do": does}))) else { continue };
            assert_eq!(run(&*session, &[Some(f32s(&[1], &[1.0]))], &[0]).is_ok(), does.is_empty() || does == "no_owner");
        }
    });
}

/// Looks at a folder of plug-ins in a process of its own: the variable is everybody's.
#[test]
fn a_folder_opens_what_it_can_and_tells_of_the_rest() {
    let folder = std::env::temp_dir().join(format!("nnrp-plugins-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(sample(), folder.join("libsample.so")).unwrap();
    std::fs::copy(sample(), folder.join("libsample_again.so")).unwrap();
    std::fs::write(folder.join("libbroken.so"), "no library").unwrap();
    std::fs::write(folder.join("README"), "no library either").unwrap();
    let told = looked_at(&folder);
    std::fs::remove_dir_all(&folder).unwrap();
    let names: Vec<&str> = told.as_array().unwrap().iter().map(|runtime| runtime["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["libbroken.so", "sample", "libsample_again.so"]);
    assert_eq!(told[0]["error"]["message"], "plug-in 'libbroken.so': it cannot be opened");
    assert_eq!((&told[1]["error"], &told[1]["version"]), (&Value::Null, &json!("1.0")));
    assert_eq!(told[2]["error"]["message"], "runtime sample: its name is another runtime's");
    let told = looked_at(Path::new("/no/such/folder"));
    assert_eq!((&told[0]["name"], &told[0]["error"]["reason"]), (&json!("NNRP_PLUGINS"), &json!("RUNTIME_NOT_INSTALLED")));
    assert_eq!(looked_at(Path::new("")), json!([]));
}

fn looked_at(folder: &Path) -> Value {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", "plugin::loading::tells_the_folder", "--ignored", "--nocapture"]).env(plugin::VARIABLE, folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once("told: ")).unwrap_or_else(|| panic!("{text}")).1;
    serde_json::from_str(line).unwrap()
}

#[test]
#[ignore = "another test runs it in a process of its own"]
#[allow(clippy::print_stdout, reason = "for the test that reads it")]
fn tells_the_folder() {
    println!("\ntold: {}", added(&[]).unwrap().to_json());
}
