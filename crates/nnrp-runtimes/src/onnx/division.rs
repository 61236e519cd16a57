//! Divisions of whole numbers by a request's own: the smallest INT32 or INT64 by -1 ends the process in ONNX Runtime, which looks for 0 alone.
use super::node::{BOOL, FLOAT, INT32, INT64, Node, Tensor, messages, name_of, number};
use super::{DEPTH_LIMIT, Field, fields};
use std::collections::HashMap;
use std::path::Path;

/// What is known of a value: its element type, 0 where that is not known, and whether it is the file's or follows from sizes alone.
#[derive(Clone, Copy, Default)]
struct Known {
    element: u64,
    fixed: bool,
}

type Values = HashMap<String, Known>;

/// Whether the values of a request may come to such a division; for all that is known, where the types are not told.
pub(crate) fn by_a_requests_values(path: &Path) -> bool {
    let Ok(bytes) = std::fs::read(path) else { return false };
    fields(&bytes).flatten().any(|field| match field {
        (7, Field::Bytes(graph)) => in_graph(graph, &mut Values::new(), 0),
        (25, Field::Bytes(function)) => {
            let mut values = Values::new();
            messages(function, 7).filter_map(Node::of).any(|node| in_node(&node, &mut values, 0))
        }
        _ => false,
    })
}

/// Whether a graph has one, with the values of the graphs around it, whose names no graph within them has again.
fn in_graph(graph: &[u8], values: &mut Values, depth: usize) -> bool {
    for field in fields(graph).flatten() {
        match field {
            (5, Field::Bytes(tensor)) => {
                let tensor = Tensor(tensor);
                values.insert(tensor.name(), Known { element: tensor.element(), fixed: true });
            }
            (11..=13, Field::Bytes(value)) => {
                let known = values.entry(name_of(value, 1)).or_default();
                known.element = known.element.max(element_of(value));
            }
            _ => {}
        }
    }
    messages(graph, 1).filter_map(Node::of).any(|node| in_node(&node, values, depth))
}

fn in_node(node: &Node<'_>, values: &mut Values, depth: usize) -> bool {
    let known = |name: &String| values.get(name).copied().unwrap_or_default();
    let inputs: Vec<Known> = node.inputs.iter().filter(|name| !name.is_empty()).map(known).collect();
    let element = inputs.iter().map(|input| input.element).find(|element| *element != 0).unwrap_or(0);
    if node.operator == "Div" {
        let told = node.outputs.first().map(known).unwrap_or_default().element;
        let element = if element == 0 { told } else { element };
        if matches!(element, 0 | INT32 | INT64) && !inputs.get(1).is_some_and(|divisor| divisor.fixed) {
            return true;
        }
    }
    let fixed = matches!(node.operator.as_str(), "Shape" | "Size") || (!node.operator.starts_with("Random") && inputs.iter().all(|input| input.fixed));
    for (index, name) in node.outputs.iter().enumerate() {
        let was = values.get(name).copied().unwrap_or_default().element;
        let element = if was == 0 { element_given(node, index, element, &inputs) } else { was };
        values.insert(name.clone(), Known { element, fixed });
    }
    node.graphs().any(|graph| depth >= DEPTH_LIMIT || in_graph(graph, values, depth + 1))
}

/// The element type of an output, where the file does not tell it: mostly that of the first input.
fn element_given(node: &Node<'_>, output: usize, first: u64, inputs: &[Known]) -> u64 {
    let at = |index: usize| inputs.get(index).map_or(0, |input| input.element);
    let tensor = || node.tensor("value").map(|tensor| tensor.element());
    match node.operator.as_str() {
        "Cast" => node.number("to").unwrap_or(0),
        "Constant" if node.says("value_int") => INT64,
        "Constant" if node.says("value_float") => FLOAT,
        "Constant" => tensor().unwrap_or(0),
        "ConstantOfShape" => tensor().unwrap_or(FLOAT),
        "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => INT64,
        "TopK" | "Unique" | "MaxPool" if output > 0 => INT64,
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" | "Not" | "IsNaN" | "IsInf" => BOOL,
        "CastLike" | "Where" | "DequantizeLinear" => at(1),
        "OneHot" => at(2),
        "If" | "Loop" | "Scan" => 0,
        _ => first,
    }
}

/// The element type that a value is told to have, if it is a tensor.
fn element_of(value: &[u8]) -> u64 {
    messages(value, 2).last().and_then(|kind| messages(kind, 1).last()).map_or(0, |tensor| number(tensor, 1))
}
