//! decode ∘ encode is the identity.
use crate::vectors::{tell_request, tell_response};
use bytes::Bytes;
use nnrp_core::tensor::{Datatype, Tensor, element_count, push_bytes_element};
use nnrp_core::{Input, Output, Parameter, Request, Response};
use nnrp_wire::codec::rest::{Encoded, Wanted, decode_request, decode_response, encode_request, encode_response};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::time::Instant;

fn tensors(binary: bool) -> impl Strategy<Value = Tensor<'static>> {
    let datatypes: Vec<Datatype> = Datatype::ALL.iter().copied().filter(|datatype| binary || datatype.json()).collect();
    let kinds = (proptest::sample::select(datatypes), vec(0i64..5, 0..4));
    kinds.prop_flat_map(move |(datatype, shape)| {
        let count = element_count(&shape).unwrap();
        let bytes = match datatype {
            Datatype::Bytes if binary => strings(vec(any::<u8>(), 0..9), count),
            Datatype::Bytes => strings(any::<String>().prop_map(String::into_bytes), count),
            Datatype::Bool => vec(0u8..2, count).boxed(),
            Datatype::Fp32 if !binary => {
                elements(any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |value| value.is_finite()).prop_map(f32::to_le_bytes), count)
            }
            Datatype::Fp64 if !binary => {
                elements(any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |value| value.is_finite()).prop_map(f64::to_le_bytes), count)
            }
            _ => vec(any::<u8>(), datatype.byte_size(count).unwrap()).boxed(),
        };
        bytes.prop_map(move |bytes| Tensor::shared(datatype, &shape, bytes.into()))
    })
}

fn strings(element: impl Strategy<Value = Vec<u8>> + 'static, count: usize) -> BoxedStrategy<Vec<u8>> {
    let join = |elements: Vec<Vec<u8>>| {
        let mut bytes = Vec::new();
        elements.iter().for_each(|element| push_bytes_element(&mut bytes, element));
        bytes
    };
    vec(element, count).prop_map(join).boxed()
}

fn elements<const N: usize>(element: impl Strategy<Value = [u8; N]> + 'static, count: usize) -> BoxedStrategy<Vec<u8>> {
    vec(element, count).prop_map(|elements| elements.concat()).boxed()
}

fn parameters() -> impl Strategy<Value = Vec<(String, Parameter)>> {
    let value = prop_oneof![
        any::<bool>().prop_map(Parameter::Bool),
        any::<i64>().prop_map(Parameter::Int),
        (i64::MAX as u64 + 1..).prop_map(Parameter::Uint),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Parameter::Double),
        any::<String>().prop_map(Parameter::String),
    ];
    btree_map("p.*", value, 0..4).prop_map(|map| map.into_iter().filter(|(name, _)| name != "priority").collect())
}

type Parts = (Option<String>, Vec<(String, Parameter)>, Vec<Input<'static, 'static>>, Vec<String>);

fn requests(binary: bool) -> impl Strategy<Value = Parts> {
    let input = (any::<String>(), tensors(binary)).prop_map(|(name, tensor)| Input { name: name.into(), tensor });
    (any::<Option<String>>(), parameters(), vec(input, 0..4), vec(any::<String>(), 0..3))
}

fn request((id, parameters, inputs, outputs): Parts) -> Request<'static, 'static> {
    Request {
        model: "m".into(),
        id: id.map(Into::into),
        parameters,
        inputs: inputs.into(),
        outputs: outputs.into_iter().map(Into::into).collect(),
        ..Request::default()
    }
}

fn responses(binary: bool) -> impl Strategy<Value = Response> {
    let output = (any::<String>(), tensors(binary)).prop_map(|(name, tensor)| Output { name: name.into(), tensor });
    (any::<String>(), any::<String>(), any::<Option<String>>(), vec(output, 0..4)).prop_map(|(model, version, id, outputs)| Response {
        model: model.into(),
        version: version.into(),
        id: id.map(Into::into),
        outputs: outputs.into(),
    })
}

fn join(encoded: &Encoded) -> (Bytes, Option<usize>) {
    let body: Vec<u8> = encoded.json.iter().chain(encoded.tensors.iter().flatten()).copied().collect();
    (body.into(), (!encoded.tensors.is_empty()).then_some(encoded.json.len()))
}

/// The data of an encoded tensor, nested as its shape says.
fn nest(elements: &[serde_json::Value], shape: &[i64]) -> serde_json::Value {
    match shape {
        [] => elements[0].clone(),
        [_] => elements.into(),
        [dim, inner @ ..] => {
            let size = elements.len() / (*dim).max(1) as usize;
            (0..*dim as usize).map(|row| nest(&elements[row * size..(row + 1) * size], inner)).collect()
        }
    }
}

/// How many significant digits the text of a number has.
fn digits(text: &str) -> usize {
    let mantissa: String = text.split('e').next().unwrap().chars().filter(char::is_ascii_digit).collect();
    mantissa.trim_matches('0').len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_comes_back_from_either_form(json in requests(false), binary in requests(true)) {
        for (parts, binary) in [(json, false), (binary, true)] {
            let request = request(parts);
            let (body, size) = join(&encode_request(&request, binary).unwrap());
            let now = Instant::now();
            let (back, wanted) = decode_request("m", "", &body, size, now).unwrap();
            prop_assert_eq!(tell_request(&back, &wanted, now), tell_request(&request, &Wanted::all(binary), now));
        }
    }

    #[test]
    fn a_response_comes_back_from_either_form(json in responses(false), binary in responses(true)) {
        for (response, binary) in [(json, false), (binary, true)] {
            let (body, size) = join(&encode_response(&response, &Wanted::all(binary)).unwrap());
            prop_assert_eq!(tell_response(&decode_response(&body, size).unwrap()), tell_response(&response));
        }
    }

    #[test]
    fn nested_data_means_the_same_as_flat(tensor in tensors(false).prop_filter("serde_json rounds FP64", |tensor| tensor.datatype != Datatype::Fp64)) {
        let response = Response { model: "m".into(), version: "1".into(), id: None, outputs: smallvec::smallvec![Output { name: "y".into(), tensor }] };
        let encoded = encode_response(&response, &Wanted::default()).unwrap();
        let mut document: serde_json::Value = serde_json::from_slice(&encoded.json).unwrap();
        let output = &mut document["outputs"][0];
        output["data"] = nest(output["data"].as_array().unwrap(), &response.outputs[0].tensor.shape);
        let text = serde_json::to_string_pretty(&document).unwrap();
        prop_assert_eq!(tell_response(&decode_response(&text.into(), None).unwrap()), tell_response(&response));
    }

    #[test]
    fn the_shortest_text_of_a_float_reads_back_to_the_same_bits(bits in vec(any::<u32>(), 1..64), wide in vec(any::<u64>(), 1..64)) {
        let narrow: Vec<f32> = bits.into_iter().map(f32::from_bits).filter(|value| value.is_finite()).collect();
        let wide: Vec<f64> = wide.into_iter().map(f64::from_bits).filter(|value| value.is_finite()).collect();
        let tensors = [
            Tensor::from_values(Datatype::Fp32, &[narrow.len() as i64], narrow.clone()),
            Tensor::from_values(Datatype::Fp64, &[wide.len() as i64], wide.clone()),
        ];
        let outputs = tensors.into_iter().map(|tensor| Output { name: "y".into(), tensor }).collect();
        let response = Response { model: "m".into(), version: "1".into(), id: None, outputs };
        let encoded = encode_response(&response, &Wanted::default()).unwrap();
        prop_assert_eq!(tell_response(&decode_response(&encoded.json, None).unwrap()), tell_response(&response));
        let texts = std::str::from_utf8(&encoded.json).unwrap().split_once("\"data\":[").unwrap().1.split(']').next().unwrap();
        for (text, value) in texts.split(',').zip(&narrow) {
            prop_assert_eq!(digits(text), digits(&format!("{value:e}")), "{}", text);
        }
    }
}
