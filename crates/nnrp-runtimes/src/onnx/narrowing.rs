//! What a runtime that computes with 32 bits does wrong in a model, whatever a request gives: whole numbers that 32 bits cannot hold, and FP64.
use super::node::{DOUBLE, Node, Tensor, messages};
use super::{DEPTH_LIMIT, Field, fields};
use std::collections::HashMap;
use std::path::Path;

/// Operators that compute with whole numbers. Others mostly use them as sizes and places, for which 32 bits will do; those that pass on or compare what does not fit,
/// as `Gather` and `Where`, are let through.
const ARITHMETIC: [&str; 11] = ["Add", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Mod", "Mul", "Pow", "Sub", "Sum"];
/// Operators that do nothing with FP64 that FP32 would not do as well.
const HARMLESS: [&str; 5] = ["Cast", "CastLike", "Identity", "Shape", "Size"];

/// Of values by name, what 32 bits cannot hold of each.
type Wide = HashMap<String, String>;

/// What is computed in the file with more than 32 bits, and where; what only some values of a request come to is not seen.
pub(crate) fn beyond_32_bits(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    fields(&bytes).flatten().find_map(|field| match field {
        (7, Field::Bytes(graph)) => in_graph(graph, &mut Wide::new(), 0),
        (25, Field::Bytes(function)) => {
            let mut wide = Wide::new();
            messages(function, 7).filter_map(Node::of).find_map(|node| in_node(&node, &mut wide, 0))
        }
        _ => None,
    })
}

fn in_graph(graph: &[u8], wide: &mut Wide, depth: usize) -> Option<String> {
    for tensor in messages(graph, 5).map(Tensor) {
        wide.extend(constant(&tensor).map(|what| (tensor.name(), what)));
    }
    messages(graph, 1).filter_map(Node::of).find_map(|node| in_node(&node, wide, depth))
}

fn in_node(node: &Node<'_>, wide: &mut Wide, depth: usize) -> Option<String> {
    let operator = node.operator.as_str();
    let met = node.inputs.iter().filter_map(|name| wide.get(name)).find(|what| match what.as_str() {
        FP64 => !HARMLESS.contains(&operator),
        _ => ARITHMETIC.contains(&operator),
    });
    if let Some(what) = met {
        return Some(format!("{what} in {operator}"));
    }
    let given = match operator {
        "Cast" if node.number("to") == Some(DOUBLE) => Some(FP64.to_owned()),
        "Constant" | "ConstantOfShape" => node.tensor("value").and_then(|tensor| constant(&tensor)),
        "Identity" => node.inputs.first().and_then(|name| wide.get(name)).cloned(),
        "CastLike" => node.inputs.get(1).and_then(|name| wide.get(name)).filter(|what| *what == FP64).cloned(),
        _ => None,
    };
    wide.extend(node.outputs.first().cloned().zip(given));
    if depth < DEPTH_LIMIT { node.graphs().find_map(|graph| in_graph(graph, wide, depth + 1)) } else { None }
}

const FP64: &str = "FP64";

fn constant(tensor: &Tensor<'_>) -> Option<String> {
    if tensor.element() == DOUBLE { Some(FP64.to_owned()) } else { tensor.beyond_32_bits().map(|value| format!("the constant {value}")) }
}
