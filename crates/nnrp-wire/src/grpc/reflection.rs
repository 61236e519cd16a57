//! Server reflection, so that tools need no `.proto`: which services there are, what they say, and what an error says.
//!
//! Its two versions differ in their names alone. What is not found is said within the call, as the protocol has it, which goes on.
use super::Service;
use super::methods::{SMALL, is_offered};
use super::outgoing::Outgoing;
use super::talk::Talk;
use crate::codec::proto::{self, DESCRIPTORS};
use crate::frame::grpc::{Bounds, SERVICE};
use crate::frame::messages::Messages;
use crate::shared::{closing, draining};
use http::{Request, Response};
use hyper::body::Incoming;
use nnrp_core::error::excerpt;
use nnrp_core::{Code, NnrpError, Reason, Result};
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest as Asked;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse as Told;
use tonic_reflection::pb::{v1, v1alpha};

/// Whether that is one of its names.
pub(super) fn is_named(service: &str, method: &str) -> bool {
    matches!(service, "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection") && method == "ServerReflectionInfo"
}

/// Answers a call.
pub(super) fn call(service: &Arc<Service>, request: Request<Incoming>) -> Response<Outgoing> {
    let (head, body) = request.into_parts();
    let settings = &service.shared.settings;
    let bounds = Bounds { byte_size: settings.max_body_bytes.min(SMALL), pause: settings.read_timeout, raw_tag: 0, pool: &service.pool, engine: None };
    let messages = Messages::new(head.headers, body, &bounds);
    Talk::begin(service, |talk| answer(talk, messages))
}

async fn answer(talk: Talk, mut messages: Messages<Incoming>) -> Result<()> {
    let mut signals = talk.service.signals.clone();
    loop {
        let asked = tokio::select! {
            biased;
            asked = tokio::time::timeout(talk.service.shared.settings.idle_timeout, messages.next()) => asked,
            () = closing(&mut signals) => return Err(draining()),
        };
        let asked = asked.map_err(|_| NnrpError::new(Reason::ClientCancelled, "nothing was asked for too long"))??;
        let Some(asked) = asked else { return Ok(()) };
        let asked = v1::ServerReflectionRequest::decode(asked).map_err(proto::malformed)?;
        let told = asked.message_request.as_ref().map_or_else(|| Err((Code::InvalidArgument, "no question was asked".to_owned())), told);
        let told = told.unwrap_or_else(|(code, error_message)| Told::ErrorResponse(v1::ErrorResponse { error_code: code as i32, error_message }));
        talk.send(&v1::ServerReflectionResponse { valid_host: asked.host.clone(), original_request: Some(asked), message_response: Some(told) }).await?;
    }
}

/// What there is to tell: the files, by their names and by what they say.
#[derive(Default)]
struct Known {
    files: HashMap<String, Arc<[u8]>>,
    symbols: HashMap<String, Arc<[u8]>>,
    services: Vec<String>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| {
    let mut known = Known::default();
    let others = [tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_types::pb::FILE_DESCRIPTOR_SET, v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET];
    for set in [DESCRIPTORS].into_iter().chain(others) {
        // They are part of the program.
        let Ok(set) = FileDescriptorSet::decode(set) else { continue };
        set.file.into_iter().for_each(|file| known.add(file));
    }
    known.services.sort();
    known
});

impl Known {
    fn add(&mut self, mut file: FileDescriptorProto) {
        // The protocol has methods that this server does not offer.
        let package = file.package().to_owned();
        for service in file.service.iter_mut().filter(|service| joined(&package, service.name()) == SERVICE) {
            service.method.retain(|method| is_offered(method.name()));
        }
        let bytes: Arc<[u8]> = file.encode_to_vec().into();
        for service in &file.service {
            let name = joined(&package, service.name());
            self.services.push(name.clone());
            service.method.iter().for_each(|method| drop(self.symbols.insert(joined(&name, method.name()), bytes.clone())));
            self.symbols.insert(name, bytes.clone());
        }
        file.message_type.iter().for_each(|message| self.message(&package, message, &bytes));
        file.enum_type.iter().for_each(|kind| drop(self.symbols.insert(joined(&package, kind.name()), bytes.clone())));
        self.files.insert(file.name().to_owned(), bytes);
    }

    fn message(&mut self, scope: &str, message: &DescriptorProto, file: &Arc<[u8]>) {
        let name = joined(scope, message.name());
        message.nested_type.iter().for_each(|nested| self.message(&name, nested, file));
        let fields = message.field.iter().map(|field| field.name());
        for within in fields.chain(message.enum_type.iter().map(|kind| kind.name())) {
            self.symbols.insert(joined(&name, within), file.clone());
        }
        self.symbols.insert(name, file.clone());
    }
}

fn joined(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

fn told(asked: &Asked) -> std::result::Result<Told, (Code, String)> {
    let found = |what: &str, name: &str, file: Option<&Arc<[u8]>>| match file {
        Some(file) => Ok(Told::FileDescriptorResponse(v1::FileDescriptorResponse { file_descriptor_proto: vec![file.to_vec()] })),
        None => Err((Code::NotFound, format!("no {what} '{}'", excerpt(name)))),
    };
    match asked {
        Asked::FileByFilename(name) => found("file", name, KNOWN.files.get(name)),
        Asked::FileContainingSymbol(name) => found("symbol", name, KNOWN.symbols.get(name)),
        Asked::FileContainingExtension(asked) => found("extension of", &asked.containing_type, None),
        Asked::AllExtensionNumbersOfType(name) => {
            found("type", name, KNOWN.symbols.get(name))?;
            let none = v1::ExtensionNumberResponse { base_type_name: name.clone(), extension_number: vec![] };
            Ok(Told::AllExtensionNumbersResponse(none))
        }
        Asked::ListServices(_) => {
            let service = KNOWN.services.iter().map(|name| v1::ServiceResponse { name: name.clone() }).collect();
            Ok(Told::ListServicesResponse(v1::ListServiceResponse { service }))
        }
    }
}
