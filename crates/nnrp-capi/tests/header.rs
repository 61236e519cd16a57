//! `spec/nnrp.h` and the library agree: layouts, numbers, functions, and what the shared library exports.
use nnrp::abi::*;
use nnrp_core::{Code, Datatype};
use std::collections::BTreeSet;
use std::ffi::{c_char, c_void};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicI32;

const HEADER: &str = include_str!("../../../spec/nnrp.h");

/// How C writes a type.
trait InC {
    fn name() -> String;
}

macro_rules! in_c {
    ($($rust:ty => $c:literal,)*) => { $(impl InC for $rust { fn name() -> String { $c.to_owned() } })* };
}

in_c! {
    () => "void",
    c_char => "char",
    c_void => "void",
    i32 => "int32_t",
    i64 => "int64_t",
    u16 => "uint16_t",
    u32 => "uint32_t",
    u64 => "uint64_t",
    u8 => "uint8_t",
    usize => "size_t",
    DLDataType => "DLDataType",
    DLDevice => "DLDevice",
    DLDeviceType => "DLDeviceType",
    DLManagedTensorVersioned => "DLManagedTensorVersioned",
    DLPackVersion => "DLPackVersion",
    DLTensor => "DLTensor",
    NnrpCancel => "NnrpCancel",
    NnrpEngine => "NnrpEngine",
    NnrpEngineOptions => "NnrpEngineOptions",
    NnrpError => "NnrpError",
    NnrpModelSpec => "NnrpModelSpec",
    NnrpRequest => "NnrpRequest",
    NnrpResponse => "NnrpResponse",
    NnrpSignature => "NnrpSignature",
    NnrpTensor => "NnrpTensor",
    NnrpTensorSpec => "NnrpTensorSpec",
    AtomicI32 => "int32_t volatile",
    NnrpFault => "NnrpFault",
    NnrpRun => "NnrpRun",
    NnrpRuntimeV1 => "NnrpRuntimeV1",
    NnrpSession => "NnrpSession",
    NnrpStream => "NnrpStream",
}

impl<T: InC> InC for *const T {
    fn name() -> String {
        format!("{} const*", T::name())
    }
}

impl<T: InC> InC for *mut T {
    fn name() -> String {
        format!("{}*", T::name())
    }
}

/// An array is told by where it begins; its length, by the offset of what follows.
impl<T: InC, const N: usize> InC for [T; N] {
    fn name() -> String {
        format!("{}*", T::name())
    }
}

/// A function's type as C writes a pointer to it, called `name`.
trait FunctionInC {
    fn pointer(self, name: &str) -> String;
}

macro_rules! functions_in_c {
    ($(($($argument:ident)*))*) => { $(
        impl<R: InC, $($argument: InC),*> FunctionInC for unsafe extern "C" fn($($argument),*) -> R {
            fn pointer(self, name: &str) -> String {
                let arguments: Vec<String> = vec![$($argument::name()),*];
                let arguments = if arguments.is_empty() { "void".to_owned() } else { arguments.join(", ") };
                format!("{} (*{name})({arguments})", R::name())
            }
        }

        impl<R: InC, $($argument: InC),*> InC for Option<unsafe extern "C" fn($($argument),*) -> R> {
            fn name() -> String {
                let arguments: Vec<String> = vec![$($argument::name()),*];
                format!("{} (*)({})", R::name(), arguments.join(", "))
            }
        }
    )* };
}

functions_in_c! { () (A) (A B) (A B C) (A B C D) (A B C D E) }

macro_rules! functions {
    ($($name:ident($($blank:tt)*);)*) => {
        /// Each function's name and its type in C.
        fn functions() -> Vec<(&'static str, String)> {
            vec![$((stringify!($name), (nnrp::$name as unsafe extern "C" fn($($blank)*) -> _).pointer(concat!("check_", stringify!($name)))),)*]
        }
    };
}

functions! {
    nnrp_abi_version();
    nnrp_cancel_create(_, _);
    nnrp_cancel_free(_);
    nnrp_cancel_raise(_);
    nnrp_engine_create(_, _, _);
    nnrp_engine_free(_);
    nnrp_error_clear(_);
    nnrp_infer(_, _, _, _);
    nnrp_load(_, _, _);
    nnrp_load_json(_, _, _);
    nnrp_metadata(_, _, _, _, _);
    nnrp_models(_, _, _);
    nnrp_now_ns();
    nnrp_response_clear(_);
    nnrp_runtimes(_, _, _);
    nnrp_signature(_, _, _, _, _);
    nnrp_signature_free(_);
    nnrp_status_name(_);
    nnrp_stream_close(_);
    nnrp_stream_next(_, _, _, _, _);
    nnrp_stream_open(_, _, _, _);
    nnrp_string_free(_);
    nnrp_unload(_, _, _, _);
    nnrp_version();
}

fn type_of<S, F: InC>(_: fn(&S) -> &F) -> String {
    F::name()
}

macro_rules! layouts {
    ($($name:ident { $($field:ident),* })*) => {
        /// Assertions, in C and C++, of each struct's size, alignment, offsets and field types.
        fn layouts() -> String {
            let mut out = String::new();
            $(
                // Fails to compile when a field is missing here.
                let _: fn($name) = |$name { $($field: _),* }| ();
                let name = stringify!($name);
                writeln!(out, "static_assert(sizeof({name}) == {} && NNRP_ALIGNOF({name}) == {}, \"{name}\");", size_of::<$name>(), align_of::<$name>()).unwrap();
                let mut end = 0;
                $(
                    let (field, offset) = (stringify!($field), std::mem::offset_of!($name, $field));
                    writeln!(out, "static_assert(offsetof({name}, {field}) == {offset}, \"{name}.{field}\");").unwrap();
                    writeln!(out, "NNRP_FIELD({name}, {field}, {})", type_of(|it: &$name| &it.$field)).unwrap();
                    assert!(offset >= end, "{name}.{field} is listed out of order");
                    end = offset;
                )*
                let _ = end;
            )*
            out
        }
    };
}

layouts! {
    DLDataType { code, bits, lanes }
    DLDevice { device_type, device_id }
    DLManagedTensorVersioned { version, manager_ctx, deleter, flags, dl_tensor }
    DLPackVersion { major, minor }
    DLTensor { data, device, ndim, dtype, shape, strides, byte_offset }
    NnrpEngineOptions { struct_size, settings_json }
    NnrpError { struct_size, code, retryable, reason, message, details_json }
    NnrpFault { struct_size, reason, message, details_json }
    NnrpModelSpec { struct_size, name, version, path, runtime, options_json, device, precision, isolation }
    NnrpRequest { struct_size, model, version, id, parameters_json, inputs, n_inputs, output_names, n_outputs, deadline_ns, cancel }
    NnrpResponse { struct_size, model, version, id, outputs, n_outputs, owner }
    NnrpRun { struct_size, inputs, n_inputs, outputs, n_outputs, results, stop, deadline_ns, give, id, parameters_json }
    NnrpRuntimeV1 { struct_size, abi_version, name, info, load, session_info, run, close, cancel, stats, set_option, warm_up, stream }
    NnrpSignature { struct_size, model, version, inputs, n_inputs, outputs, n_outputs }
    NnrpTensor { struct_size, name, tensor, datatype, ndim, shape }
    NnrpTensorSpec { struct_size, name, datatype, optional, ndim, shape, symbols }
}

/// C that compiles only where the header says what the library says.
fn agreement() -> String {
    let mut out = String::from(
        r#"#include "nnrp.h"
#include <assert.h>
#ifdef __cplusplus
#include <type_traits>
#define NNRP_ALIGNOF(type) alignof(type)
#define NNRP_FIELD(name, field, kind) static_assert(std::is_same<std::decay<decltype(name::field)>::type, kind>::value, #name "." #field);
#else
#define NNRP_ALIGNOF(type) _Alignof(type)
#define NNRP_FIELD(name, field, type) static_assert(_Generic(((name*)0)->field, type: 1, default: 0), #name "." #field);
#endif
"#,
    );
    out += &layouts();
    for (name, pointer) in functions() {
        writeln!(out, "{} = {name};", pointer).unwrap();
    }
    for code in Code::ALL {
        writeln!(out, "static_assert(NNRP_{} == {}, \"code\");", code.name(), code as i32).unwrap();
    }
    for (place, datatype) in Datatype::ALL.iter().enumerate() {
        writeln!(out, "static_assert(NNRP_{} == {}, \"datatype\");", datatype.name(), place + 1).unwrap();
    }
    for (name, next) in [("END", NEXT_END), ("ANSWER", NEXT_ANSWER), ("WAIT", NEXT_WAIT)] {
        writeln!(out, "static_assert(NNRP_NEXT_{name} == {next}, \"next\");").unwrap();
    }
    out += "const NnrpRuntimeV1* (*check_entry)(void) = nnrp_runtime_v1;\n";
    writeln!(out, "static_assert(NNRP_ABI_MAJOR == {ABI_MAJOR} && NNRP_ABI_MINOR == {ABI_MINOR}, \"version\");").unwrap();
    out
}

/// The compilers of this machine with their standard; C++ is a courtesy that not every machine can check.
fn compilers() -> Vec<(&'static str, &'static str)> {
    let known = [("cc", "-std=c11"), ("c++", "-std=c++17")];
    known.into_iter().filter(|(compiler, _)| *compiler == "cc" || Command::new(compiler).arg("--version").output().is_ok()).collect()
}

fn compile(name: &str, source: &str, (compiler, standard): (&str, &str)) -> Result<(), String> {
    let language = if compiler == "cc" { "c" } else { "c++" };
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{language}"));
    std::fs::write(&file, source).unwrap();
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../spec");
    let output = Command::new(compiler)
        .args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic-errors", "-fsyntax-only", "-x", language, "-I"])
        .args([&spec, &file])
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}"));
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn layouts_numbers_and_function_types_agree_in_c_and_in_cpp() {
    let source = agreement();
    for compiler in compilers() {
        compile("agreement", &source, compiler).unwrap_or_else(|text| panic!("{compiler:?}:\n{text}"));
    }
}

#[test]
fn a_swapped_field_and_a_changed_function_are_noticed() {
    let swapped = agreement().replace("offsetof(NnrpTensor, ndim) == 28", "offsetof(NnrpTensor, ndim) == 24");
    let changed = agreement().replace("(*check_nnrp_unload)(NnrpEngine*, char const*, char const*", "(*check_nnrp_unload)(NnrpEngine*, char const*, char*");
    for wrong in [swapped, changed] {
        assert_ne!(wrong, agreement());
        for compiler in compilers() {
            assert!(compile("wrong", &wrong, compiler).is_err(), "{compiler:?}");
        }
    }
}

/// The constants of the unnamed enumeration that follows `typedef int32_t NAME;`.
fn constants(name: &str) -> BTreeSet<&'static str> {
    let (_, after) = HEADER.split_once(&format!("typedef int32_t {name};\nenum {{\n")).unwrap();
    let (body, _) = after.split_once("};").unwrap();
    body.lines().map(|line| line.trim().split(' ').next().unwrap().trim_start_matches("NNRP_")).collect()
}

#[test]
fn the_header_has_the_codes_and_datatypes_of_the_tables_and_no_others() {
    let errors: toml::Table = include_str!("../../../spec/errors.toml").parse().unwrap();
    let codes = errors["codes"].as_table().unwrap().keys().map(String::as_str);
    assert_eq!(constants("NnrpStatus"), codes.chain(["OK"]).collect());
    let datatypes: toml::Table = include_str!("../../../spec/datatypes.toml").parse().unwrap();
    assert_eq!(constants("NnrpDatatype"), datatypes.keys().map(String::as_str).chain(["DATATYPE_UNSET"]).collect());
}

#[test]
fn the_shared_library_exports_what_the_header_declares_and_nothing_else() {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(deps.join("libnnrp.so")).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let exported: BTreeSet<&str> = listed.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let declared: BTreeSet<&str> =
        HEADER.lines().filter(|line| line.starts_with("NNRP_API ")).filter_map(|line| line.split('(').next()?.split([' ', '*']).next_back()).collect();
    assert_eq!(exported, declared);
    assert_eq!(declared, functions().into_iter().map(|(name, _)| name).collect());
}
