use super::load;
use crate::common::room::Heap;
use crate::common::{f32s, values};
use nnrp_core::{Control, Session, Tensor};

fn ask(session: &dyn Session, heap: &Heap, outputs: &[usize]) -> Vec<Tensor<'static>> {
    session.run_into(&[Some(f32s(&[3], &[1.0, -2.0, 3.0]))], outputs, Control::default(), heap).unwrap().into_vec()
}

#[test]
fn outputs_whose_shapes_are_known_are_written_where_the_host_wants_them() {
    let heap = Heap::default();
    for (name, outputs, expected) in
        [("double", &[0][..], vec![vec![3.0, -3.0, 7.0]]), ("two_outputs", &[1, 0], vec![vec![1.0, 2.0, 3.0], vec![-1.0, 2.0, -3.0]])]
    {
        let got = ask(&*load(name), &heap, outputs);
        assert_eq!(got.iter().map(values).collect::<Vec<_>>(), expected, "{name}");
        assert_eq!(got.iter().map(|tensor| tensor.bytes().as_ptr() as usize).collect::<Vec<_>>(), heap.given(), "{name}");
    }
}

#[test]
fn an_output_that_is_an_input_or_a_constant_is_right_wherever_it_lies() {
    for (name, expected) in [("through", vec![1.0, -2.0, 3.0]), ("constant", vec![0.0, 1.0, 2.0, 3.0])] {
        assert_eq!(values(&ask(&*load(name), &Heap::default(), &[0])[0]), expected, "{name}");
    }
}

#[test]
fn an_output_that_is_not_as_its_model_says_is_right_all_the_same_and_costs_one_run_more_once() {
    let (session, heap) = (load("lying"), Heap::default());
    for places in [1, 0] {
        assert_eq!(values(&ask(&*session, &heap, &[0])[0]), [1.0, -2.0, 3.0, 1.0, -2.0, 3.0]);
        assert_eq!(heap.given().len(), places);
    }
}
