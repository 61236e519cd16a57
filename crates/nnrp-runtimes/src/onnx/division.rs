//! Divisions of whole numbers by a request's own: the smallest INT32 or INT64 by -1 ends the process in ONNX Runtime, which looks for 0 alone.
use super::{DEPTH_LIMIT, Field, fields, text};
use std::collections::HashMap;
use std::path::Path;

/// What is known of a value: its element type, 0 where that is not known, and whether it is the file's or follows from sizes alone.
#[derive(Clone, Copy, Default)]
struct Known {
    element: u64,
    fixed: bool,
}

type Values = HashMap<String, Known>;

const FLOAT: u64 = 1;
const INT32: u64 = 6;
const INT64: u64 = 7;
const BOOL: u64 = 9;

/// Whether the values of a request may come to such a division; for all that is known, where the types are not told.
pub(crate) fn by_a_requests_values(path: &Path) -> bool {
    let Ok(bytes) = std::fs::read(path) else { return false };
    fields(&bytes).flatten().any(|field| match field {
        (7, Field::Bytes(graph)) => divides(graph, &mut Values::new(), 0),
        (25, Field::Bytes(function)) => {
            nodes(function, 7).filter_map(Node::of).scan(Values::new(), |values, node| Some(node.divides(values, 0))).any(|found| found)
        }
        _ => false,
    })
}

/// Whether a graph does, with the values of the graphs around it, whose names no graph within them has again.
fn divides(graph: &[u8], values: &mut Values, depth: usize) -> bool {
    for field in fields(graph).flatten() {
        match field {
            (5, Field::Bytes(tensor)) => drop(values.insert(name_of(tensor, 8), Known { element: number(tensor, 2), fixed: true })),
            (11..=13, Field::Bytes(value)) => {
                let known = values.entry(name_of(value, 1)).or_default();
                known.element = known.element.max(element_of(value));
            }
            _ => {}
        }
    }
    nodes(graph, 1).filter_map(Node::of).any(|node| node.divides(values, depth))
}

struct Node<'a> {
    operator: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    attributes: Vec<&'a [u8]>,
}

impl<'a> Node<'a> {
    fn of(message: &'a [u8]) -> Option<Node<'a>> {
        let mut node = Node { operator: String::new(), inputs: Vec::new(), outputs: Vec::new(), attributes: Vec::new() };
        let mut ours = true;
        for field in fields(message) {
            match field? {
                (1, Field::Bytes(name)) => node.inputs.push(text(name)),
                (2, Field::Bytes(name)) => node.outputs.push(text(name)),
                (4, Field::Bytes(operator)) => node.operator = text(operator),
                (5, Field::Bytes(attribute)) => node.attributes.push(attribute),
                (7, Field::Bytes(domain)) => ours = domain.is_empty() || domain == b"ai.onnx",
                _ => {}
            }
        }
        ours.then_some(node)
    }

    fn is_division(&self) -> bool {
        self.operator == "Div"
    }

    fn divides(&self, values: &mut Values, depth: usize) -> bool {
        let known = |name: &String| values.get(name).copied().unwrap_or_default();
        let inputs: Vec<Known> = self.inputs.iter().filter(|name| !name.is_empty()).map(known).collect();
        let element = inputs.iter().map(|input| input.element).find(|element| *element != 0).unwrap_or(0);
        if self.is_division() {
            let told = self.outputs.first().map(known).unwrap_or_default().element;
            let element = if element == 0 { told } else { element };
            if matches!(element, 0 | INT32 | INT64) && !inputs.get(1).is_some_and(|divisor| divisor.fixed) {
                return true;
            }
        }
        let fixed = matches!(self.operator.as_str(), "Shape" | "Size") || (!self.operator.starts_with("Random") && inputs.iter().all(|input| input.fixed));
        for (index, name) in self.outputs.iter().enumerate() {
            let was = values.get(name).copied().unwrap_or_default().element;
            let element = if was == 0 { self.element(index, element, &inputs) } else { was };
            values.insert(name.clone(), Known { element, fixed });
        }
        let graphs = || self.attributes.iter().flat_map(|attribute| nodes(attribute, 6).chain(nodes(attribute, 11)));
        graphs().any(|graph| depth >= DEPTH_LIMIT || divides(graph, values, depth + 1))
    }

    /// The element type of an output, where the file does not tell it: mostly that of the first input.
    fn element(&self, output: usize, first: u64, inputs: &[Known]) -> u64 {
        let at = |index: usize| inputs.get(index).map_or(0, |input| input.element);
        match self.operator.as_str() {
            "Cast" => self.attribute("to", 3).unwrap_or(0),
            "Constant" => self.constant(),
            "ConstantOfShape" => self.tensor("value").unwrap_or(FLOAT),
            "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => INT64,
            "TopK" | "Unique" | "MaxPool" if output > 0 => INT64,
            "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" | "Not" | "IsNaN" | "IsInf" => BOOL,
            "CastLike" | "Where" | "DequantizeLinear" => at(1),
            "OneHot" => at(2),
            "If" | "Loop" | "Scan" => 0,
            _ => first,
        }
    }

    fn attribute(&self, name: &str, field: u32) -> Option<u64> {
        let found = self.attributes.iter().find(|attribute| name_of(attribute, 1) == name)?;
        Some(number(found, field))
    }

    fn tensor(&self, name: &str) -> Option<u64> {
        let found = self.attributes.iter().find(|attribute| name_of(attribute, 1) == name)?;
        nodes(found, 5).next().map(|tensor| number(tensor, 2))
    }

    fn constant(&self) -> u64 {
        let named = |prefix: &str| self.attributes.iter().any(|attribute| name_of(attribute, 1).starts_with(prefix));
        self.tensor("value").unwrap_or(if named("value_int") {
            INT64
        } else if named("value_float") {
            FLOAT
        } else {
            0
        })
    }
}

/// The messages in a field of that number.
fn nodes(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    fields(message).flatten().filter_map(move |field| match field {
        (found, Field::Bytes(bytes)) if found == number => Some(bytes),
        _ => None,
    })
}

fn name_of(message: &[u8], number: u32) -> String {
    nodes(message, number).last().map(text).unwrap_or_default()
}

fn number(message: &[u8], wanted: u32) -> u64 {
    let found = fields(message).flatten().filter_map(|field| if let (tag, Field::Number(number)) = field { (tag == wanted).then_some(number) } else { None });
    found.last().unwrap_or(0)
}

/// The element type that a value is told to have, if it is a tensor.
fn element_of(value: &[u8]) -> u64 {
    nodes(value, 2).last().and_then(|kind| nodes(kind, 1).last()).map_or(0, |tensor| number(tensor, 1))
}
