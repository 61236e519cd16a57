//! The methods of the gRPC form, one by one, and the errors that they give.
use crate::grpc_support::{Peer, Script, ask, asked, framed, serve_both, serve_with};
use crate::support::floats;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use nnrp_wire::codec::proto::messages as m;
use prost::Message;
use prost_types::FileDescriptorProto;
use std::io::Write;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse};

#[test]
fn live_ready_and_metadata_are_told() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    assert!(peer.call("ServerLive", &m::ServerLiveRequest {}).message::<m::ServerLiveResponse>().live);
    assert!(peer.call("ServerReady", &m::ServerReadyRequest {}).message::<m::ServerReadyResponse>().ready);
    let metadata: m::ServerMetadataResponse = peer.call("ServerMetadata", &m::ServerMetadataRequest {}).message();
    assert_eq!((metadata.name.as_str(), metadata.version.as_str()), ("nnrp", env!("CARGO_PKG_VERSION")));
    let asked = m::ModelReadyRequest { name: "double".into(), version: "2".into() };
    assert!(peer.call("ModelReady", &asked).message::<m::ModelReadyResponse>().ready);
}

#[test]
fn a_model_tells_what_it_takes_and_gives() {
    let (server, _gate) = serve_both();
    let asked = m::ModelMetadataRequest { name: "double".into(), version: String::new() };
    let metadata: m::ModelMetadataResponse = Peer::to(&server).call("ModelMetadata", &asked).message();
    assert_eq!((metadata.name.as_str(), metadata.platform.as_str()), ("double", "tiny_rs"));
    assert_eq!(metadata.versions, ["1", "2"]);
    let tensors: Vec<_> =
        metadata.inputs.iter().chain(&metadata.outputs).map(|tensor| (tensor.name.as_str(), tensor.datatype.as_str(), tensor.shape.as_slice())).collect();
    assert_eq!(tensors, [("x", "FP32", &[-1][..]), ("y", "FP32", &[-1][..])]);
}

#[test]
fn the_index_lists_every_version() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let index: m::RepositoryIndexResponse = peer.call("RepositoryIndex", &m::RepositoryIndexRequest { ready: true, ..Default::default() }).message();
    let models: Vec<_> = index.models.iter().map(|model| (model.name.as_str(), model.version.as_str(), model.state.as_str())).collect();
    assert_eq!(models, [("broken", "1", "READY"), ("double", "1", "READY"), ("double", "2", "READY"), ("echo", "1", "READY"), ("gate", "1", "READY")]);
    let other = m::RepositoryIndexRequest { repository_name: "other".into(), ready: false };
    peer.call("RepositoryIndex", &other).assert_error(12, "NOT_OFFERED");
}

#[test]
fn an_answer_has_the_id_the_version_and_raw_contents() {
    let (server, _gate) = serve_both();
    let request = m::ModelInferRequest { id: "r-7".into(), ..ask("double", &[1.0, 2.0]) };
    let answer: m::ModelInferResponse = Peer::to(&server).call("ModelInfer", &request).message();
    assert_eq!((answer.model_name.as_str(), answer.model_version.as_str(), answer.id.as_str()), ("double", "2", "r-7"));
    assert_eq!((answer.outputs[0].name.as_str(), answer.outputs[0].shape.as_slice(), &answer.outputs[0].contents), ("y", &[2][..], &None));
    assert_eq!(floats(&answer.raw_output_contents[0]), [3.0, 5.0]);
}

#[test]
fn typed_contents_are_taken_and_answered_raw() {
    let (server, _gate) = serve_both();
    let mut request = ask("double", &[]);
    request.raw_input_contents.clear();
    request.inputs[0].shape = vec![2];
    request.inputs[0].contents = Some(m::InferTensorContents { fp32_contents: vec![1.0, 2.0], ..Default::default() });
    let answer: m::ModelInferResponse = Peer::to(&server).call("ModelInfer", &request).message();
    assert_eq!(floats(&answer.raw_output_contents[0]), [3.0, 5.0]);
}

#[test]
fn messages_far_over_four_mebibytes_go_both_ways() {
    let (server, _gate) = serve_both();
    let x: Vec<f32> = (0..6_000_000).map(|value| value as f32).collect();
    let answer: m::ModelInferResponse = Peer::to(&server).call("ModelInfer", &ask("double", &x)).message();
    assert!(floats(&answer.raw_output_contents[0]).iter().zip(&x).all(|(y, x)| *y == x * 2.0 + 1.0));
}

#[test]
fn a_message_may_come_in_pieces_of_any_size() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let x: Vec<f32> = (0..500).map(|value| value as f32).collect();
    for size in [1, 3, 7, 1_000] {
        let answer = peer.infer(&[], Script::of(asked("double", &x).chunks(size).map(<[u8]>::to_vec)));
        assert_eq!(floats(&answer.message::<m::ModelInferResponse>().raw_output_contents[0])[499], 999.0, "{size}");
    }
}

#[test]
fn a_message_over_the_limit_is_refused_before_it_is_read() {
    let (server, _gate) = serve_with(|settings| settings.max_body_bytes = 1_000);
    let peer = Peer::to(&server);
    let details = peer.infer(&[], Script::of([asked("double", &[0.0; 250])])).assert_error(3, "BODY_TOO_LARGE");
    assert_eq!(details["limit"], "1000");
    peer.infer(&[], Script::of([vec![0, 255, 255, 255, 255]]).that_never_ends()).assert_error(3, "BODY_TOO_LARGE");
    assert_eq!(peer.call("ModelInfer", &ask("double", &[1.0; 200])).status.code(), tonic::Code::Ok);
}

#[test]
fn compressed_messages_are_taken_and_bounded() {
    let (server, _gate) = serve_with(|settings| settings.max_body_bytes = 100_000);
    let peer = Peer::to(&server);
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut deflated = ZlibEncoder::new(Vec::new(), Compression::best());
    deflated.write_all(&ask("double", &[1.0]).encode_to_vec()).unwrap();
    let zipped = gzip(&ask("double", &[1.0]).encode_to_vec());
    for (encoding, bytes) in [("gzip", &zipped), ("deflate", &deflated.finish().unwrap())] {
        let answer = peer.infer(&[("grpc-encoding", encoding)], Script::of([framed(1, bytes)]));
        assert_eq!(floats(&answer.message::<m::ModelInferResponse>().raw_output_contents[0]), [3.0]);
    }
    peer.infer(&[("grpc-encoding", "gzip")], Script::of([framed(1, &gzip(&vec![0; 50 << 20]))])).assert_error(3, "BODY_TOO_LARGE");
    peer.infer(&[("grpc-encoding", "gzip")], Script::of([framed(1, b"not gzip")])).assert_error(3, "MALFORMED");
    peer.infer(&[], Script::of([framed(1, &zipped)])).assert_error(3, "MALFORMED");
    let answer = peer.infer(&[("grpc-encoding", "snappy")], Script::of([framed(1, &zipped)]));
    answer.assert_error(12, "NOT_OFFERED");
    assert_eq!(answer.headers["grpc-accept-encoding"], "identity,deflate,gzip");
}

#[test]
fn errors_name_the_model_the_version_and_the_tensor() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let refused = |request: m::ModelInferRequest, code, reason| peer.call("ModelInfer", &request).assert_error(code, reason);
    refused(ask("nope", &[1.0]), 5, "MODEL_NOT_FOUND");
    refused(ask("", &[1.0]), 5, "MODEL_NOT_FOUND");
    refused(ask("../double", &[1.0]), 5, "MODEL_NOT_FOUND");
    refused(ask(&"x".repeat(10_000), &[1.0]), 5, "MODEL_NOT_FOUND");
    refused(m::ModelInferRequest { model_version: "abc".into(), ..ask("double", &[1.0]) }, 5, "VERSION_NOT_FOUND");
    let changed = |change: fn(&mut m::ModelInferRequest)| {
        let mut request = ask("double", &[1.0, 2.0]);
        change(&mut request);
        request
    };
    assert_eq!(refused(changed(|r| r.inputs[0].name = "z".into()), 3, "UNKNOWN_INPUT")["input"], "\"z\"");
    refused(changed(|r| r.inputs[0].datatype = "FP64".into()), 3, "DATATYPE_MISMATCH");
    refused(changed(|r| r.inputs[0].datatype = "FLOAT".into()), 3, "UNKNOWN_DATATYPE");
    refused(changed(|r| r.inputs[0].shape = vec![1, 2]), 3, "SHAPE_MISMATCH");
    refused(changed(|r| r.inputs[0].shape = vec![-2]), 3, "INVALID_SHAPE");
    refused(changed(|r| r.inputs[0].shape = vec![3]), 3, "BYTE_SIZE_MISMATCH");
    refused(changed(|r| r.raw_input_contents[0] = vec![0; 7].into()), 3, "BYTE_SIZE_MISMATCH");
    refused(
        changed(|r| {
            r.inputs.clear();
            r.raw_input_contents.clear();
        }),
        3,
        "MISSING_INPUT",
    );
    refused(
        changed(|r| {
            r.inputs.push(r.inputs[0].clone());
            r.raw_input_contents.push(r.raw_input_contents[0].clone());
        }),
        3,
        "DUPLICATE_INPUT",
    );
    refused(changed(|r| r.outputs.push(m::model_infer_request::InferRequestedOutputTensor { name: "w".into(), ..Default::default() })), 3, "UNKNOWN_OUTPUT");
}

#[test]
fn readiness_and_metadata_of_what_is_not_there_are_not_found() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    for method in ["ModelReady", "ModelMetadata"] {
        peer.call(method, &m::ModelReadyRequest { name: "nope".into(), version: String::new() }).assert_error(5, "MODEL_NOT_FOUND");
        peer.call(method, &m::ModelReadyRequest { name: "double".into(), version: "9".into() }).assert_error(5, "VERSION_NOT_FOUND");
    }
}

#[test]
fn what_is_not_offered_is_unimplemented() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    for method in ["ModelConfig", "ModelStatistics", "RepositoryModelLoad", "SystemSharedMemoryRegister", "TraceSetting", "LogSettings", "modelinfer", ""] {
        peer.call(method, &m::ServerLiveRequest {}).assert_error(12, "NOT_OFFERED");
    }
    for path in ["/", "/x", "/inference.Other/ModelInfer", "/grpc.reflection.v9.ServerReflection/ServerReflectionInfo"] {
        peer.send(path, &[], Script::of([framed(0, b"")])).assert_error(12, "NOT_OFFERED");
    }
}

#[test]
fn the_request_id_comes_back_and_every_error_has_one() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let answer = peer.infer(&[("x-request-id", "mine")], Script::of([asked("double", &[1.0])]));
    assert_eq!(answer.headers["x-request-id"], "mine");
    let answer = peer.infer(&[("x-request-id", "mine")], Script::of([asked("nope", &[1.0])]));
    assert_eq!(answer.assert_error(5, "MODEL_NOT_FOUND")["nnrp_request_id"], "mine");
    let answer = peer.infer(&[], Script::of([asked("nope", &[1.0])]));
    assert_eq!(answer.assert_error(5, "MODEL_NOT_FOUND")["nnrp_request_id"], answer.headers["x-request-id"]);
}

#[test]
fn our_own_defect_is_internal_and_tells_nothing() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let answer = peer.call("ModelMetadata", &m::ModelMetadataRequest { name: "broken".into(), version: String::new() });
    answer.assert_error(13, "BUG");
    assert_eq!(answer.status.message(), "internal error");
    assert_eq!(peer.call("ServerLive", &m::ServerLiveRequest {}).status.code(), tonic::Code::Ok);
}

#[test]
fn health_is_told_of_the_server_the_service_and_each_model() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let check = |name: &str| {
        let message = HealthCheckRequest { service: name.into() }.encode_to_vec();
        peer.send("/grpc.health.v1.Health/Check", &[], Script::of([framed(0, &message)]))
    };
    for name in ["", "inference.GRPCInferenceService", "double", "gate"] {
        assert_eq!(check(name).message::<HealthCheckResponse>().status, ServingStatus::Serving as i32, "{name}");
    }
    check("nope").assert_error(5, "MODEL_NOT_FOUND");
    for method in ["List", "check", ""] {
        peer.send(&format!("/grpc.health.v1.Health/{method}"), &[], Script::of([framed(0, b"")])).assert_error(12, "NOT_OFFERED");
    }
}

#[test]
fn what_is_no_message_is_malformed_whatever_is_asked() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let methods = ["ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "RepositoryIndex", "ModelInfer"];
    let paths = methods.map(|method| format!("/inference.GRPCInferenceService/{method}"));
    let reflection = ["v1", "v1alpha"].map(|version| format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"));
    let health = ["Check", "Watch"].map(|method| format!("/grpc.health.v1.Health/{method}"));
    for path in paths.iter().chain(&reflection).chain(&health) {
        for bytes in [&b"\xff\xff"[..], b"\x0a\x05ab", b"\x0b", b"\x00"] {
            peer.send(path, &[], Script::of([framed(0, bytes)])).assert_error(3, "MALFORMED");
        }
        peer.send(path, &[], Script::of([framed(7, b"")])).assert_error(3, "MALFORMED");
        peer.send(path, &[], Script::of([b"\0\xff\xff\xff\xff".to_vec()]).that_never_ends()).assert_error(3, "BODY_TOO_LARGE");
    }
    assert_eq!(peer.call("ServerLive", &m::ServerLiveRequest {}).status.code(), tonic::Code::Ok);
}

#[test]
fn reflection_says_within_the_call_what_it_does_not_know_and_goes_on() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let extension = ExtensionRequest { containing_type: "inference.ModelInferRequest".into(), extension_number: 7 };
    let asked = [
        Some(MessageRequest::FileByFilename("no/such.proto".into())),
        Some(MessageRequest::FileContainingSymbol("no.such.Symbol".into())),
        Some(MessageRequest::FileContainingExtension(extension)),
        Some(MessageRequest::AllExtensionNumbersOfType("no.such.Type".into())),
        None,
        Some(MessageRequest::AllExtensionNumbersOfType("inference.ModelInferRequest".into())),
        Some(MessageRequest::FileContainingSymbol("inference.GRPCInferenceService.ModelInfer".into())),
        Some(MessageRequest::FileContainingSymbol("inference.ModelInferRequest.model_name".into())),
    ];
    let asked = asked.map(|message_request| ServerReflectionRequest { host: "h".into(), message_request });
    let answer =
        peer.send("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &[], Script::of(asked.iter().map(|asked| framed(0, &asked.encode_to_vec()))));
    assert_eq!(answer.status.code(), tonic::Code::Ok, "{:?}", answer.status);
    let mut told = Vec::new();
    let mut rest = &answer.body[..];
    for asked in asked {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        let answer = ServerReflectionResponse::decode(&rest[5..5 + length]).unwrap();
        rest = &rest[5 + length..];
        assert_eq!((answer.valid_host.as_str(), answer.original_request), ("h", Some(asked)));
        told.push(match answer.message_response.unwrap() {
            MessageResponse::ErrorResponse(error) if !error.error_message.is_empty() => error.error_code,
            _ => 0,
        });
    }
    assert_eq!((told, rest.len()), (vec![5, 5, 5, 5, 3, 0, 0, 0], 0));
}

#[test]
fn a_watched_health_changes_and_ends_when_the_server_stops() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let message = framed(0, &HealthCheckRequest::default().encode_to_vec());
    let watching = crate::grpc_support::request("/grpc.health.v1.Health/Watch", &[], Script::of([message]));
    let mut sender = peer.sender.clone();
    let statuses = peer.runtime.block_on(async {
        let mut body = sender.send_request(watching).await.unwrap().into_body();
        let mut statuses = Vec::new();
        let mut stopping = Some(server);
        while let Some(Ok(frame)) = std::future::poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut body), cx)).await {
            let Ok(data) = frame.into_data() else { continue };
            statuses.push(HealthCheckResponse::decode(&data[5..]).unwrap().status);
            if let Some(server) = stopping.take() {
                std::thread::spawn(move || server.stop(crate::support::PATIENCE));
            }
        }
        statuses
    });
    assert_eq!(statuses, [ServingStatus::Serving as i32, ServingStatus::NotServing as i32]);
}

#[test]
fn reflection_knows_the_services_what_they_offer_and_what_their_errors_say() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let ask = |version: &str, what: MessageRequest| {
        let ask = ServerReflectionRequest { host: String::new(), message_request: Some(what) };
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let answer: ServerReflectionResponse = peer.send(&path, &[], Script::of([framed(0, &ask.encode_to_vec())])).message();
        answer.message_response.unwrap()
    };
    for version in ["v1", "v1alpha"] {
        let text = format!("{:?}", ask(version, MessageRequest::ListServices(String::new())));
        assert!(text.contains("inference.GRPCInferenceService") && text.contains("grpc.health.v1.Health"), "{text}");
        let file = |what| match ask(version, what) {
            MessageResponse::FileDescriptorResponse(files) => FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).unwrap(),
            other => panic!("{other:?}"),
        };
        // Every method that is told is offered.
        let service = file(MessageRequest::FileContainingSymbol("inference.GRPCInferenceService".into())).service.remove(0);
        assert!(service.method.len() >= 8);
        for method in &service.method {
            let answer = peer.send(&format!("/inference.GRPCInferenceService/{}", method.name()), &[], Script::of([framed(0, b"")]));
            assert_ne!(answer.status.code(), tonic::Code::Unimplemented, "{}", method.name());
        }
        for symbol in ["google.rpc.ErrorInfo", "google.rpc.Status"] {
            for needed in file(MessageRequest::FileContainingSymbol(symbol.into())).dependency {
                assert_eq!(file(MessageRequest::FileByFilename(needed.clone())).name(), needed);
            }
        }
    }
}
