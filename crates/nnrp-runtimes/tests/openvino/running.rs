use super::{load, load_as, load_file, load_with};
use crate::common::{Scratch, f32s, file, openvino, run, spec, values};
use nnrp_core::{AlignedBuf, Datatype, Precision, Reason, Runtime, Session, Tensor};
use serde_json::json;
use std::sync::Arc;

#[test]
fn every_datatype_but_strings_comes_back_as_it_went_in() {
    for &datatype in Datatype::ALL.iter().filter(|&&datatype| datatype != Datatype::Bytes) {
        let session =
            load_as(&format!("identity_{}", datatype.name()), "cpu", Precision::Fast).unwrap_or_else(|error| panic!("{}: {error:?}", datatype.name()));
        assert_eq!(session.info().signature.inputs[0].datatype, datatype);
        for count in [6_usize, 5, 0, 4096] {
            let size = datatype.byte_size(count).unwrap();
            let byte = |index: usize| match datatype {
                Datatype::Bool => u8::from(index.is_multiple_of(3)),
                // The high half of each number is zero: nothing is cut to 32 bits.
                Datatype::Int64 | Datatype::Uint64 if index % 8 > 2 => 0,
                Datatype::Uint32 if index % 4 == 3 => 0,
                // No denormals in eight and sixteen bits, and no half a byte that nobody uses.
                Datatype::Int4 | Datatype::Uint4 if index + 1 == size => 5,
                _ => (index * 37 % 100 + 17) as u8,
            };
            let bytes: Vec<u8> = (0..size).map(byte).collect();
            let aligned = AlignedBuf::copy_of(&bytes);
            let input = Tensor::borrowed(datatype, &[i64::try_from(count).unwrap()], aligned.as_ref());
            let output = run(&*session, &[Some(input)], &[0]).unwrap_or_else(|error| panic!("{}: {error:?}", datatype.name())).remove(0);
            assert_eq!((output.datatype, output.shape.as_slice(), output.bytes()), (datatype, &[count as i64][..], &bytes[..]), "{}", datatype.name());
        }
    }
}

#[test]
fn every_format_gives_the_same_numbers() {
    let numbers: Vec<f32> = (0..8).map(|number| number as f32).collect();
    let expected: Vec<f32> = numbers.iter().map(|number| 2.0 * number + 1.0).collect();
    for name in ["double.tflite", "double.pb", "double_saved_model", "double.pdmodel"] {
        let output = run(&*load_file(name), &[Some(f32s(&[2, 4], &numbers))], &[0]).unwrap().remove(0);
        assert_eq!((output.shape.as_slice(), values(&output)), (&[2, 4][..], expected.clone()), "{name}");
    }
    for name in ["double.onnx", "double.xml"] {
        assert_eq!(values(&run(&*load_file(name), &[Some(f32s(&[8], &numbers))], &[0]).unwrap()[0]), expected, "{name}");
    }
}

#[test]
fn what_a_file_is_called_does_not_matter() {
    let numbers: Vec<f32> = (0..8).map(|number| number as f32).collect();
    let expected: Vec<f32> = numbers.iter().map(|number| 2.0 * number + 1.0).collect();
    for (source, weights) in
        [("double.tflite", None), ("double.pb", None), ("double.pdmodel", Some("pdiparams")), ("double.xml", Some("bin")), ("double.onnx", None)]
    {
        let shape: &[i64] = if weights == Some("bin") || source.ends_with("onnx") { &[8] } else { &[2, 4] };
        for ending in ["onnx", "xml", "tflite", "pb", "pdmodel", "model"] {
            let renamed = Scratch::new(&format!("renamed-{source}.{ending}"), &std::fs::read(file(source)).unwrap());
            let beside = renamed.0.with_extension(weights.unwrap_or("none"));
            let _weights = weights.map(|ending| {
                std::fs::copy(file(source).with_extension(ending), &beside).unwrap();
                Scratch(beside)
            });
            let session = openvino().load(&spec(&renamed.0, json!({}))).unwrap_or_else(|error| panic!("{source} as .{ending}: {error:?}"));
            let output = run(&*session, &[Some(f32s(shape, &numbers))], &[0]).unwrap().remove(0);
            assert_eq!((output.shape.as_slice(), values(&output)), (shape, expected.clone()), "{source} as .{ending}");
        }
    }
}

#[test]
fn a_scalar_has_no_dimensions_and_a_dimension_may_differ_from_run_to_run() {
    let output = run(&*load("scalar"), &[Some(f32s(&[], &[2.5]))], &[0]).unwrap().remove(0);
    assert_eq!((output.shape.len(), values(&output)), (0, vec![2.5]));
    let session = load("dynamic");
    for (batch, width) in [(1, 2), (4, 1), (2, 0), (3, 5), (200, 40), (1, 1)] {
        let numbers: Vec<f32> = (0..batch * 3 * width).map(|number| number as f32).collect();
        let shape = [i64::from(batch), 3, i64::from(width)];
        let output = run(&*session, &[Some(f32s(&shape, &numbers))], &[0]).unwrap_or_else(|error| panic!("{shape:?}: {error:?}")).remove(0);
        assert_eq!((output.shape.as_slice(), values(&output)), (&shape[..], numbers));
    }
}

#[test]
fn an_output_may_have_as_many_elements_as_the_data_say() {
    let session = load("nonzero");
    for (numbers, found) in [(vec![0.0, 3.0, 0.0, 4.0], vec![1_i64, 3]), (vec![0.0; 3], vec![]), (vec![1.0; 5], vec![0, 1, 2, 3, 4])] {
        let output = run(&*session, &[Some(f32s(&[numbers.len() as i64], &numbers))], &[0]).unwrap().remove(0);
        assert_eq!((output.datatype, output.shape.as_slice()), (Datatype::Int64, &[1, found.len() as i64][..]));
        assert_eq!(output.bytes().chunks_exact(8).map(|word| i64::from_le_bytes(word.try_into().unwrap())).collect::<Vec<_>>(), found);
    }
}

#[test]
fn outputs_come_in_the_order_asked_for_and_only_those() {
    let session = load("two_outputs");
    let got = |outputs: &[usize]| run(&*session, &[Some(f32s(&[2], &[-1.0, 2.0]))], outputs).unwrap().iter().map(values).collect::<Vec<_>>();
    let (minus, size) = (vec![1.0, -2.0], vec![1.0, 2.0]);
    assert_eq!(got(&[0, 1]), [minus.clone(), size.clone()]);
    assert_eq!(got(&[1, 0]), [size.clone(), minus]);
    assert_eq!(got(&[1]), [size]);
}

#[test]
fn outputs_outlive_their_session_and_other_runs_whatever_their_size() {
    for count in [4_usize, 100_000] {
        let mut outputs = Vec::new();
        for name in ["through", "double", "constant"] {
            let session = load(name);
            for turn in 0..12 {
                let numbers = vec![turn as f32; count];
                let output = run(&*session, &[Some(f32s(&[count as i64], &numbers))], &[0]).unwrap().remove(0);
                drop(numbers);
                outputs.push((name, turn as f32, output));
            }
        }
        let _other_memory = std::hint::black_box(vec![9.0_f32; count]);
        for (name, turn, output) in &outputs {
            let expected = match *name {
                "through" => vec![*turn; count],
                "double" => vec![2.0 * turn + 1.0; count],
                _ => vec![0.0, 1.0, 2.0, 3.0],
            };
            assert_eq!(values(output), expected, "{name} {turn}");
        }
    }
}

#[test]
fn inputs_are_only_read() {
    for name in ["double", "two_outputs", "through"] {
        let numbers = vec![-3.0_f32; 20_000];
        run(&*load(name), &[Some(f32s(&[20_000], &numbers))], &[0]).unwrap();
        assert!(numbers.iter().all(|&number| number == -3.0), "{name}");
    }
}

#[test]
fn an_input_that_the_model_makes_nothing_of_stays_in_the_signature() {
    let session = load("unused_input");
    let names: Vec<_> = session.info().signature.inputs.iter().map(|input| (&*input.name, input.datatype)).collect();
    assert_eq!(names, [("x", Datatype::Fp32), ("unused", Datatype::Int64)]);
    let unused = Tensor::from_values(Datatype::Int64, &[1, 3], vec![1_i64, 2, 3]);
    assert_eq!(values(&run(&*session, &[Some(f32s(&[1], &[4.0])), Some(unused)], &[0]).unwrap()[0]), [-4.0]);
}

#[test]
fn integers_that_would_be_cut_to_32_bits_are_refused() {
    let session = load("negative_INT64");
    let ask = |values: Vec<i64>| run(&*session, &[Some(Tensor::from_values(Datatype::Int64, &[values.len() as i64], values))], &[0]);
    assert_eq!(ask(vec![i64::from(i32::MAX), 7]).unwrap()[0].bytes()[..8], (-i64::from(i32::MAX)).to_le_bytes());
    for wide in [1_i64 << 31, i64::MIN, i64::from(i32::MIN) - 1] {
        let error = ask(vec![0, wide]).unwrap_err();
        assert!(error.is(Reason::ValueOutOfRange) && error.details()["index"] == 1, "{error:?}");
    }
}

#[test]
fn a_shape_beyond_its_bounds_is_refused() {
    let session = load_with("double", json!({"shapes": {"x": [[2, 4]]}})).unwrap();
    let ask = |count: usize| run(&*session, &[Some(f32s(&[count as i64], &vec![1.0; count]))], &[0]);
    assert_eq!(values(&ask(4).unwrap()[0]), [3.0; 4]);
    for count in [1, 5] {
        assert!(ask(count).unwrap_err().is(Reason::ShapeMismatch));
    }
}

#[test]
fn bytes_that_do_not_fit_the_shape_never_reach_the_model() {
    let session = load("double");
    for shape in [&[1_000_000][..], &[0], &[-1], &[i64::MAX, i64::MAX]] {
        assert!(run(&*session, &[Some(f32s(shape, &[1.0]))], &[0]).unwrap_err().is(Reason::ByteSizeMismatch));
    }
    assert!(run(&*session, &[], &[0]).unwrap_err().is(Reason::Bug));
    assert!(run(&*session, &[None], &[0]).unwrap_err().is(Reason::Bug));
    assert!(run(&*session, &[Some(f32s(&[1], &[1.0]))], &[1]).unwrap_err().is(Reason::Bug));
}

#[test]
fn runs_on_four_threads_at_once_are_all_right() {
    for (name, count) in [("double", 16_usize), ("double", 20_000)] {
        let session: Arc<dyn Session> = load(name).into();
        let wrong = |thread: u16| {
            let session = session.clone();
            std::thread::spawn(move || {
                (0..240_u16)
                    .filter(|&turn| {
                        let numbers: Vec<f32> = (0..count).map(|index| f32::from(thread) * 1_000.0 + f32::from(turn) + (index % 7) as f32).collect();
                        let output = run(&*session, &[Some(f32s(&[count as i64], &numbers))], &[0]).unwrap().remove(0);
                        values(&output) != numbers.iter().map(|number| 2.0 * number + 1.0).collect::<Vec<_>>()
                    })
                    .count()
            })
        };
        let threads: Vec<_> = (0..4).map(wrong).collect();
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 0);
    }
}
