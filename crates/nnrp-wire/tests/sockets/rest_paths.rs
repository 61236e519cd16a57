//! Each path of the REST form, each method, and what is not there.
use crate::support::{BODY, INFER, Wire, serve, settings};
use serde_json::json;

#[test]
fn each_path_answers_with_and_without_a_slash_at_its_end() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    let model = json!({
        "name": "double", "versions": ["1", "2"], "platform": "tiny_rs",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
    });
    let answers = [
        ("/v2", json!({"name": "nnrp", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data"]})),
        ("/v2/health/live", json!({"live": true})),
        ("/v2/health/ready", json!({"ready": true})),
        ("/v2/models", json!({"models": ["broken", "double", "echo", "gate"]})),
        ("/v2/models/double", model.clone()),
        ("/v2/models/double/versions/1", model),
        ("/v2/models/double/ready", json!({"name": "double", "ready": true})),
        ("/v2/models/double/versions/2/ready", json!({"name": "double", "ready": true})),
    ];
    for (path, expected) in answers {
        for path in [path.to_owned(), format!("{path}/"), format!("{path}?a=b")] {
            let reply = wire.get(&path);
            assert_eq!((reply.status, reply.json()), (200, expected.clone()), "{path}");
            assert_eq!(reply.header("content-type"), Some("application/json"));
        }
    }
}

#[test]
fn head_answers_as_get_without_the_body() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    let reply = wire.send("HEAD /v2/models/double HTTP/1.1\r\nhost: t\r\n\r\n").head();
    assert_eq!(reply.status, 200);
    assert_ne!(reply.header("content-length"), Some("0"));
    assert_eq!(wire.get("/v2/health/live").status, 200);
}

#[test]
fn the_index_takes_an_empty_body_and_a_filter() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    for body in ["", " ", "{}", r#"{"ready": true}"#] {
        let reply = wire.post("/v2/repository/index", "", body);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.json()[1], json!({"name": "double", "version": "1", "state": "READY"}));
    }
    for body in ["[", "[]", "7", r#"{"ready": 1}"#] {
        wire.post("/v2/repository/index", "", body).assert_error(400, "INVALID_ARGUMENT", "MALFORMED");
    }
}

#[test]
fn unknown_paths_models_and_versions_are_not_found() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    for path in ["/", "/v1/models/double", "/v2x", "/v2/models/double/predict", "/v2/health", "/favicon.ico"] {
        wire.get(path).assert_error(404, "NOT_FOUND", "PATH_NOT_FOUND");
    }
    for name in ["nope", "a%2Fb", "..", "%2e%2e", "double%00", "%ff", "", "double%20"] {
        wire.get(&format!("/v2/models/{name}/ready")).assert_error(404, "NOT_FOUND", "MODEL_NOT_FOUND");
        wire.post(&format!("/v2/models/{name}/versions/1/infer"), "", BODY).assert_error(404, "NOT_FOUND", "MODEL_NOT_FOUND");
    }
    wire.get("/v2/models/double/versions/abc").assert_error(404, "NOT_FOUND", "VERSION_NOT_FOUND");
    wire.get("/v2/models/double/versions/7/ready").assert_error(404, "NOT_FOUND", "VERSION_NOT_FOUND");
    wire.post("/v2/models/nope/infer", "", BODY).assert_error(404, "NOT_FOUND", "MODEL_NOT_FOUND");
    wire.post("/v2/models/double/versions/3/infer", "", BODY).assert_error(404, "NOT_FOUND", "VERSION_NOT_FOUND");
}

#[test]
fn a_percent_encoded_name_is_the_name() {
    let (server, _gate) = serve(settings());
    assert_eq!(Wire::to(&server).post("/v2/models/d%6fubl%65/versions/%31/infer", "", BODY).status, 200);
}

#[test]
fn a_name_of_10_kb_is_not_found_and_neither_is_a_path_of_100_kb() {
    let (server, _gate) = serve(settings());
    let long = "m".repeat(10_000);
    let error = Wire::to(&server).post(&format!("/v2/models/{long}/infer"), "", BODY).assert_error(404, "NOT_FOUND", "MODEL_NOT_FOUND");
    assert!(error.to_string().len() < 1000);
    let path = format!("/v2/models/{}/infer", "m".repeat(100_000));
    Wire::to(&server).post(&path, "", BODY).assert_error(404, "NOT_FOUND", "PATH_NOT_FOUND");
    assert_eq!(Wire::to(&server).get("/v2/health/live").status, 200);
}

#[test]
fn a_method_that_a_path_does_not_take_is_told_which_it_takes() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    for (method, path, allow) in [
        ("GET", INFER, "POST"),
        ("DELETE", "/v2/models/double", "GET, HEAD"),
        ("POST", "/v2", "GET, HEAD"),
        ("PUT", "/v2/health/live", "GET, HEAD"),
        ("GET", "/v2/repository/index", "POST"),
        ("OPTIONS", INFER, "POST"),
    ] {
        let reply = wire.send(format!("{method} {path} HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n")).reply();
        reply.assert_error(405, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED");
        assert_eq!(reply.header("allow"), Some(allow));
    }
}

#[test]
fn a_request_id_is_echoed_or_made() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    let error = wire.send("GET /nope HTTP/1.1\r\nhost: t\r\nx-request-id: abc-7\r\n\r\n").reply();
    assert_eq!(error.json()["request_id"], "abc-7");
    assert_eq!(error.header("x-request-id"), Some("abc-7"));
    let fine = wire.send("GET /v2 HTTP/1.1\r\nhost: t\r\nx-request-id: abc-8\r\n\r\n").reply();
    assert_eq!(fine.header("x-request-id"), Some("abc-8"));
    let (first, second) = (wire.get("/nope").json(), wire.get("/nope").json());
    assert_ne!(first["request_id"], second["request_id"]);
}

#[test]
fn a_handler_that_panics_is_one_error_without_its_text() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    let error = wire.get("/v2/models/broken").assert_error(500, "INTERNAL", "BUG");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(wire.get("/v2/health/live").status, 200);
}
