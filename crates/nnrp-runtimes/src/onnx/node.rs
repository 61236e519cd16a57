//! Nodes of an ONNX graph, as far as who looks for what a runtime does wrong needs them.
use super::{Field, fields, text};

/// Element types.
pub(super) const FLOAT: u64 = 1;
pub(super) const INT32: u64 = 6;
pub(super) const INT64: u64 = 7;
pub(super) const BOOL: u64 = 9;
pub(super) const DOUBLE: u64 = 11;

/// A node of ONNX's own operators.
pub(super) struct Node<'a> {
    pub(super) operator: String,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    attributes: Vec<&'a [u8]>,
}

impl<'a> Node<'a> {
    /// The node in a message; none where it is somebody else's operator.
    pub(super) fn of(message: &'a [u8]) -> Option<Node<'a>> {
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

    /// The graphs within it.
    pub(super) fn graphs(&self) -> impl Iterator<Item = &'a [u8]> {
        self.attributes.iter().flat_map(|attribute| messages(attribute, 6).chain(messages(attribute, 11)))
    }

    /// A number among its attributes.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.attribute(name).map(|attribute| number(attribute, 3))
    }

    /// A tensor among its attributes.
    pub(super) fn tensor(&self, name: &str) -> Option<Tensor<'a>> {
        messages(self.attribute(name)?, 5).next().map(Tensor)
    }

    /// Whether an attribute's name begins so.
    pub(super) fn says(&self, prefix: &str) -> bool {
        self.attributes.iter().any(|attribute| name_of(attribute, 1).starts_with(prefix))
    }

    fn attribute(&self, name: &str) -> Option<&'a [u8]> {
        self.attributes.iter().copied().find(|attribute| name_of(attribute, 1) == name)
    }
}

/// A tensor with its elements.
pub(super) struct Tensor<'a>(pub(super) &'a [u8]);

impl Tensor<'_> {
    pub(super) fn name(&self) -> String {
        name_of(self.0, 8)
    }

    pub(super) fn element(&self) -> u64 {
        number(self.0, 2)
    }

    /// Of INT64, the first element that 32 bits cannot hold; elements in another file are not looked at.
    pub(super) fn beyond_32_bits(&self) -> Option<i64> {
        let beyond = |value: &i64| i32::try_from(*value).is_err();
        let raw = || messages(self.0, 9).flat_map(|bytes| bytes.as_chunks::<8>().0).map(|chunk| i64::from_le_bytes(*chunk)).find(beyond);
        let each = || {
            fields(self.0).flatten().filter_map(|field| if let (7, Field::Number(number)) = field { Some(super::signed(number)) } else { None }).find(beyond)
        };
        let packed = || messages(self.0, 7).flat_map(numbers).find(beyond);
        if self.element() == INT64 { raw().or_else(packed).or_else(each) } else { None }
    }
}

fn numbers(mut packed: &[u8]) -> impl Iterator<Item = i64> {
    std::iter::from_fn(move || prost::encoding::decode_varint(&mut packed).ok().map(super::signed))
}

/// The messages in a field of that number.
pub(super) fn messages(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    fields(message).flatten().filter_map(move |field| match field {
        (found, Field::Bytes(bytes)) if found == number => Some(bytes),
        _ => None,
    })
}

/// The text in a field of that number.
pub(super) fn name_of(message: &[u8], number: u32) -> String {
    messages(message, number).last().map(text).unwrap_or_default()
}

/// The number in a field of that number; 0 where there is none.
pub(super) fn number(message: &[u8], wanted: u32) -> u64 {
    let found = fields(message).flatten().filter_map(|field| if let (tag, Field::Number(number)) = field { (tag == wanted).then_some(number) } else { None });
    found.last().unwrap_or(0)
}
