use super::{load, load_with};
use crate::common::room::Heap;
use crate::common::{f32s, run, values};
use nnrp_core::{Control, Session, Tensor};
use serde_json::json;

const X: [f32; 3] = [1.0, -2.0, 3.0];

fn fixed(name: &str) -> Box<dyn Session> {
    load_with(name, json!({"shapes": {"x": [3]}})).expect("the model loads")
}

fn ask(session: &dyn Session, heap: &Heap, outputs: &[usize]) -> Vec<Tensor<'static>> {
    session.run_into(&[Some(f32s(&[3], &X))], outputs, Control::default(), heap).unwrap().into_vec()
}

fn places(tensors: &[Tensor<'static>]) -> Vec<usize> {
    tensors.iter().map(|tensor| tensor.bytes().as_ptr() as usize).collect()
}

#[test]
fn outputs_of_fixed_shapes_are_written_where_the_host_wants_them_run_after_run() {
    for (name, outputs, expected) in
        [("double", &[0][..], vec![vec![3.0, -3.0, 7.0]]), ("two_outputs", &[1, 0], vec![vec![1.0, 2.0, 3.0], vec![-1.0, 2.0, -3.0]])]
    {
        let (session, heap) = (fixed(name), Heap::default());
        let mut kept = Vec::new();
        for _ in 0..3 {
            let got = ask(&*session, &heap, outputs);
            assert_eq!(places(&got), heap.given(), "{name}");
            kept.push(got);
        }
        // The request that they came from goes on without a place, and leaves them as they are.
        let plain = run(&*session, &[Some(f32s(&[3], &[5.0, 5.0, 5.0]))], outputs).unwrap();
        assert!(plain.iter().zip(&expected).all(|(tensor, expected)| values(tensor) != *expected), "{name}");
        assert!(kept.iter().all(|got| got.iter().map(values).eq(expected.iter().cloned())), "{name}");
    }
}

#[test]
fn an_output_that_is_an_input_or_a_constant_is_right_wherever_it_lies() {
    for (name, expected) in [("through", vec![1.0, -2.0, 3.0]), ("constant", vec![0.0, 1.0, 2.0, 3.0])] {
        let (session, heap) = (fixed(name), Heap::default());
        for _ in 0..2 {
            assert_eq!(values(&ask(&*session, &heap, &[0])[0]), expected, "{name}");
        }
    }
}

#[test]
fn an_output_whose_shape_is_not_known_takes_no_place() {
    let heap = Heap::default();
    assert_eq!(values(&ask(&*load("double"), &heap, &[0])[0]), [3.0, -3.0, 7.0]);
    assert_eq!(heap.given().len(), 0);
}
