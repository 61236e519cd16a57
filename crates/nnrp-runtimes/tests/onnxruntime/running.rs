use super::load;
use crate::common::{f32s, run, values};
use nnrp_core::tensor::push_bytes_element;
use nnrp_core::{AlignedBuf, Datatype, Reason, Session, Tensor};
use std::sync::Arc;

fn strings(elements: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    elements.iter().for_each(|element| push_bytes_element(&mut bytes, element));
    bytes
}

#[test]
fn every_datatype_comes_back_as_it_went_in() {
    for &datatype in Datatype::ALL {
        let session = load(&format!("identity_{}", datatype.name()));
        assert_eq!(session.info().signature.inputs[0].datatype, datatype);
        let bytes = match datatype {
            Datatype::Bytes => strings(&[b"a", b"bc", b"", b"d\0e", "ä".as_bytes(), b"f"]),
            Datatype::Bool => vec![0, 1, 1, 0, 1, 0],
            _ => (0..u8::try_from(datatype.byte_size(6).unwrap()).unwrap()).map(|byte| byte.wrapping_mul(5)).collect(),
        };
        let aligned = AlignedBuf::copy_of(&bytes);
        let input = Tensor::borrowed(datatype, &[6], aligned.as_ref());
        let output = run(&*session, &[Some(input)], &[0]).unwrap().remove(0);
        assert_eq!((output.datatype, output.shape.as_slice(), output.bytes()), (datatype, &[6][..], &bytes[..]), "{}", datatype.name());
    }
}

#[test]
fn every_datatype_may_be_empty() {
    for &datatype in Datatype::ALL {
        let session = load(&format!("identity_{}", datatype.name()));
        let output = run(&*session, &[Some(Tensor::borrowed(datatype, &[0], &[]))], &[0]).unwrap().remove(0);
        assert_eq!((output.datatype, output.shape.as_slice(), output.bytes().len()), (datatype, &[0][..], 0), "{}", datatype.name());
    }
}

#[test]
fn a_scalar_has_no_dimensions() {
    let output = run(&*load("scalar"), &[Some(f32s(&[], &[2.5]))], &[0]).unwrap().remove(0);
    assert!(output.shape.is_empty());
    assert_eq!(values(&output), [2.5]);
}

#[test]
fn a_dimension_may_differ_from_run_to_run() {
    let session = load("dynamic");
    for (batch, width) in [(1, 2), (4, 1), (2, 0), (3, 5)] {
        let numbers: Vec<f32> = (0..batch * 3 * width).map(|number| number as f32).collect();
        let shape = [i64::from(batch), 3, i64::from(width)];
        let output = run(&*session, &[Some(f32s(&shape, &numbers))], &[0]).unwrap().remove(0);
        assert_eq!((output.shape.as_slice(), values(&output)), (&shape[..], numbers));
    }
}

#[test]
fn any_rank_goes_where_the_model_takes_any() {
    let session = load("any_rank");
    for shape in [&[][..], &[1], &[1, 1, 1, 1, 1, 1, 1, 1]] {
        let output = run(&*session, &[Some(f32s(shape, &[7.0]))], &[0]).unwrap().remove(0);
        assert_eq!((output.shape.as_slice(), values(&output)), (shape, vec![7.0]));
    }
}

#[test]
fn strings_keep_their_nul_and_their_order_through_a_split() {
    let session = load("split");
    let elements: [&[u8]; 6] = [b"\0", b"", b"one\0two", b"", b"", b"last"];
    let outputs = run(&*session, &[Some(Tensor::borrowed(Datatype::Bytes, &[6], &strings(&elements)))], &[1, 0]).unwrap();
    assert_eq!(outputs[0].bytes(), strings(&elements[3..]));
    assert_eq!(outputs[1].bytes(), strings(&elements[..3]));
}

#[test]
fn strings_that_do_not_add_up_are_refused() {
    let session = load("identity_BYTES");
    let whole = strings(&[b"a", b"b"]);
    for (shape, bytes) in [(&[3][..], &whole[..]), (&[1], &whole), (&[2], &whole[..9]), (&[i64::MAX], &whole), (&[-1], &whole)] {
        let error = run(&*session, &[Some(Tensor::borrowed(Datatype::Bytes, shape, bytes))], &[0]).unwrap_err();
        assert!(error.is(Reason::ByteSizeMismatch), "{error:?}");
    }
}

#[test]
fn fewer_bytes_than_the_shape_says_never_reach_the_model() {
    let session = load("double");
    let error = run(&*session, &[Some(f32s(&[1_000_000], &[1.0]))], &[0]).unwrap_err();
    assert!(error.is(Reason::RunFailed), "{error:?}");
}

#[test]
fn an_optional_input_may_be_left_out_or_given() {
    let session = load("optional_initializer");
    let x = || Some(f32s(&[2], &[1.0, 2.0]));
    assert_eq!(values(&run(&*session, &[x(), None], &[0]).unwrap()[0]), [11.0, 12.0]);
    assert_eq!(values(&run(&*session, &[x(), Some(f32s(&[1], &[100.0]))], &[0]).unwrap()[0]), [101.0, 102.0]);
}

#[test]
fn outputs_come_in_the_order_asked_for_and_only_those() {
    let session = load("two_outputs");
    let x = || Some(f32s(&[2], &[-1.0, 2.0]));
    let got = |outputs: &[usize]| run(&*session, &[x()], outputs).unwrap().iter().map(values).collect::<Vec<_>>();
    let (minus, size) = (vec![1.0, -2.0], vec![1.0, 2.0]);
    assert_eq!(got(&[0, 1]), [minus.clone(), size.clone()]);
    assert_eq!(got(&[1, 0]), [size.clone(), minus]);
    assert_eq!(got(&[1]), [size]);
}

#[test]
fn an_output_outlives_its_session_and_the_input_that_it_is() {
    let mut outputs = Vec::new();
    for name in ["through", "constant", "double"] {
        let session = load(name);
        let numbers = vec![3.0_f32; 4];
        outputs.push(run(&*session, &[Some(f32s(&[4], &numbers))], &[0]).unwrap().remove(0));
    }
    let _other_memory = std::hint::black_box(vec![9.0_f32; 4]);
    assert_eq!(outputs.iter().map(values).collect::<Vec<_>>(), [vec![3.0; 4], vec![0.0, 1.0, 2.0, 3.0], vec![7.0; 4]]);
}

#[test]
fn an_optional_that_holds_nothing_is_an_error_that_names_the_output() {
    let session = load("optional_output");
    let give = |give: &'static [u8; 1]| [Some(Tensor::borrowed(Datatype::Bool, &[], give)), Some(f32s(&[1], &[4.0]))];
    assert_eq!(values(&run(&*session, &give(&[1]), &[0]).unwrap()[0]), [4.0]);
    let error = run(&*session, &give(&[0]), &[0]).unwrap_err();
    assert!(error.is(Reason::NotOffered) && error.message().contains("'y'"), "{error:?}");
}

#[test]
fn an_input_of_optional_type_takes_a_tensor_or_nothing() {
    let session = load("optional_input");
    assert!(session.info().signature.inputs[0].optional);
    let output = run(&*session, &[Some(f32s(&[1], &[4.0]))], &[0]).unwrap().remove(0);
    assert_eq!(output.bytes(), [1]);
    assert_eq!(run(&*session, &[None], &[0]).unwrap()[0].bytes(), [0]);
}

#[test]
fn runs_on_four_threads_at_once_are_all_right() {
    let session: Arc<dyn Session> = load("double").into();
    let wrong = |thread: u16| {
        let session = session.clone();
        std::thread::spawn(move || {
            (0..5_000_u16)
                .filter(|&turn| {
                    let numbers: Vec<f32> = (0..16).map(|index| f32::from(thread) * 10_000.0 + f32::from(turn) + f32::from(index as u8)).collect();
                    let output = run(&*session, &[Some(f32s(&[16], &numbers))], &[0]).unwrap().remove(0);
                    values(&output) != numbers.iter().map(|number| 2.0 * number + 1.0).collect::<Vec<_>>()
                })
                .count()
        })
    };
    let threads: Vec<_> = (0..4).map(wrong).collect();
    assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 0);
}

#[test]
fn a_run_that_does_not_fit_the_signature_is_our_bug() {
    let session = load("double");
    assert!(run(&*session, &[], &[0]).unwrap_err().is(Reason::Bug));
    assert!(run(&*session, &[Some(f32s(&[1], &[1.0]))], &[1]).unwrap_err().is(Reason::Bug));
}
