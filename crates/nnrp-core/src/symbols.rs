//! Dimensions of one symbol have one size (spec §7.10): runtimes find out in the middle of a run, or not at all.
use crate::error::{NnrpError, Reason, Result};
use crate::model::{Signature, Symbols, TensorSpec};
use crate::tensor::Tensor;
use std::collections::HashMap;

/// The symbols that the inputs of a signature repeat; for most models there are none, and nothing is compared.
pub(crate) struct Ties(Box<[Tie]>);

struct Tie {
    symbol: String,
    places: Vec<Place>,
}

#[derive(Clone, Copy)]
struct Place {
    input: usize,
    axis: usize,
}

impl Ties {
    /// Finds them, once for each session.
    pub(crate) fn of(signature: &Signature, symbols: Symbols) -> Ties {
        let (mut ties, mut known) = (Vec::<Tie>::new(), HashMap::<&str, usize>::new());
        let inputs = if symbols == Symbols::Equal { &*signature.inputs } else { &[] };
        for (input, spec) in inputs.iter().enumerate() {
            let open = |axis: usize| spec.shape.as_ref().is_some_and(|shape| shape.get(axis) == Some(&-1));
            let named = spec.symbols.iter().enumerate().filter_map(|(axis, symbol)| Some((axis, symbol.as_deref()?)));
            for (axis, symbol) in named.filter(|&(axis, symbol)| open(axis) && is_name(symbol)) {
                let index = *known.entry(symbol).or_insert(ties.len());
                if index == ties.len() {
                    ties.push(Tie { symbol: symbol.to_owned(), places: vec![] });
                }
                ties[index].places.push(Place { input, axis });
            }
        }
        ties.retain(|tie| tie.places.len() > 1);
        Ties(ties.into())
    }

    /// Compares the sizes; an input that was left out has none.
    ///
    /// # Errors
    /// `SHAPE_MISMATCH`, naming the symbol, both inputs and their sizes.
    #[inline]
    pub(crate) fn check(&self, signature: &Signature, inputs: &[Option<Tensor<'_>>]) -> Result<()> {
        self.0.iter().try_for_each(|tie| tie.check(signature, inputs))
    }
}

/// Whether a tensor has open dimensions and its runtime tells no names of them, not even that there are none.
pub(crate) fn is_unnamed(spec: &TensorSpec) -> bool {
    spec.symbols.is_empty() && spec.shape.as_ref().is_some_and(|shape| shape.contains(&-1))
}

/// The signature with these names, by tensor, for what has none; `None` where that changes nothing.
pub(crate) fn with_names(signature: &Signature, names: &HashMap<String, Vec<Option<String>>>) -> Option<Signature> {
    let mut named = signature.clone();
    let mut changed = false;
    for spec in named.inputs.iter_mut().chain(&mut named.outputs).filter(|spec| is_unnamed(spec)) {
        let dims = spec.shape.as_deref().unwrap_or_default();
        let Some(symbols) = names.get(&*spec.name).filter(|symbols| symbols.len() == dims.len()) else { continue };
        spec.symbols = symbols.iter().zip(dims).map(|(symbol, &dim)| symbol.clone().filter(|_| dim == -1)).collect();
        changed |= spec.symbols.iter().any(Option::is_some);
    }
    changed.then_some(named)
}

/// Whether a symbol says anything: exporters also write `?`, `-1` or `None` for a size that they do not know, and sums that name another size.
pub(crate) fn is_name(symbol: &str) -> bool {
    symbol != "None" && symbol.starts_with(|first: char| first.is_alphabetic() || first == '_') && symbol.chars().all(|c| c.is_alphanumeric() || c == '_')
}

impl Tie {
    fn check(&self, signature: &Signature, inputs: &[Option<Tensor<'_>>]) -> Result<()> {
        let mut sizes = self.places.iter().filter_map(|&place| Some((place, *inputs.get(place.input)?.as_ref()?.shape.get(place.axis)?)));
        let Some(first) = sizes.next() else { return Ok(()) };
        sizes.find(|(_, size)| *size != first.1).map_or(Ok(()), |other| Err(self.differ(signature, first, other)))
    }

    #[cold]
    fn differ(&self, signature: &Signature, one: (Place, i64), other: (Place, i64)) -> NnrpError {
        let name = |(place, _): (Place, i64)| &*signature.inputs[place.input].name;
        let told = |at: (Place, i64)| format!("{} in dimension {} of input '{}'", at.1, at.0.axis, name(at));
        let message = format!("inputs: expected one size for the model's symbol '{}', got {} and {}", self.symbol, told(one), told(other));
        NnrpError::new(Reason::ShapeMismatch, message)
            .with("symbol", self.symbol.as_str())
            .with("inputs", vec![name(one), name(other)])
            .with("dimensions", vec![one.0.axis, other.0.axis])
            .with("got", vec![one.1, other.1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Datatype, Shape};

    fn spec(name: &str, dims: &[(i64, Option<&str>)]) -> TensorSpec {
        let shape = dims.iter().map(|(dim, _)| *dim).collect();
        let symbols = dims.iter().map(|(_, symbol)| symbol.map(str::to_owned)).collect();
        TensorSpec { name: name.into(), datatype: Datatype::Uint8, shape: Some(shape), symbols, ranges: vec![], optional: true }
    }

    fn signature(inputs: Vec<TensorSpec>) -> Signature {
        Signature { inputs, outputs: vec![] }
    }

    fn tensor(shape: &[i64]) -> Option<Tensor<'static>> {
        Some(Tensor { shape: Shape::from_slice(shape), ..Tensor::borrowed(Datatype::Uint8, &[0], &[]) })
    }

    #[test]
    fn one_symbol_has_one_size_in_all_inputs_and_within_one() {
        let signature = signature(vec![spec("a", &[(-1, Some("m")), (-1, Some("k"))]), spec("b", &[(-1, Some("k")), (-1, Some("k"))])]);
        let ties = Ties::of(&signature, Symbols::Equal);
        let check = |a, b| ties.check(&signature, &[a, b]);
        assert!(check(tensor(&[2, 3]), tensor(&[3, 3])).is_ok());
        let refused = check(tensor(&[2, 3]), tensor(&[4, 3])).unwrap_err();
        assert!(refused.is(Reason::ShapeMismatch));
        let expected = "inputs: expected one size for the model's symbol 'k', got 3 in dimension 1 of input 'a' and 4 in dimension 0 of input 'b'";
        assert_eq!(refused.message(), expected);
        assert_eq!((&refused.details()["symbol"], &refused.details()["got"]), (&"k".into(), &vec![3, 4].into()));
        assert!(check(None, tensor(&[3, 4])).is_err());
        assert!(check(tensor(&[2, 9]), None).is_ok());
    }

    /// A look at each known symbol for each other one would take minutes.
    #[test]
    fn symbols_without_number_are_found_as_quickly_as_few() {
        let mut inputs: Vec<TensorSpec> = (0..10_000)
            .map(|input| {
                let names: Vec<String> = (0..63).map(|axis| format!("n{input}_{axis}")).collect();
                let dims: Vec<(i64, Option<&str>)> = names.iter().map(|name| (-1, Some(name.as_str()))).chain([(-1, Some("all"))]).collect();
                spec(&format!("x{input}"), &dims)
            })
            .collect();
        inputs.push(spec("last", &[(-1, Some("n0_0"))]));
        let ties = Ties::of(&signature(inputs), Symbols::Equal);
        let found: Vec<(&str, usize)> = ties.0.iter().map(|tie| (tie.symbol.as_str(), tie.places.len())).collect();
        assert_eq!(found, [("n0_0", 2), ("all", 10_000)]);
    }

    #[test]
    fn what_a_runtime_does_not_name_has_the_files_names() {
        let unnamed = |name, dims: &[i64]| TensorSpec { symbols: vec![], ..spec(name, &dims.iter().map(|&dim| (dim, None)).collect::<Vec<_>>()) };
        let told = Signature { inputs: vec![unnamed("a", &[-1, 4]), spec("b", &[(-1, None)]), unnamed("c", &[-1])], outputs: vec![unnamed("d", &[-1])] };
        let names = |all: &[(&str, &[&str])]| {
            all.iter().map(|(name, dims)| ((*name).to_owned(), dims.iter().map(|dim| Some((*dim).to_owned())).collect())).collect::<HashMap<_, _>>()
        };
        let named = with_names(&told, &names(&[("a", &["n", "m"]), ("b", &["n"]), ("c", &["n", "m"]), ("d", &["n"])])).unwrap();
        assert_eq!(named.inputs[0].symbols, [Some("n".to_owned()), None]);
        assert_eq!((&named.inputs[1].symbols, &named.inputs[2].symbols), (&vec![None], &vec![]));
        assert_eq!(named.outputs[0].symbols, [Some("n".to_owned())]);
        assert!(with_names(&told, &names(&[("b", &["n"])])).is_none());
    }

    #[test]
    fn what_is_no_name_claims_nothing() {
        for symbol in ["?", "-1", "None", "", "past + 1", "4"] {
            let signature = signature(vec![spec("a", &[(-1, Some(symbol))]), spec("b", &[(-1, Some(symbol))])]);
            assert!(Ties::of(&signature, Symbols::Equal).0.is_empty(), "{symbol}");
        }
    }

    #[test]
    fn a_signature_without_a_repeated_symbol_has_nothing_to_compare() {
        let signature = signature(vec![spec("a", &[(-1, Some("n")), (4, Some("c"))]), spec("b", &[(-1, None), (4, Some("c"))])]);
        assert!(Ties::of(&signature, Symbols::Equal).0.is_empty());
        let tied = self::signature(vec![spec("a", &[(-1, Some("n"))]), spec("b", &[(-1, Some("n"))])]);
        assert!(!Ties::of(&tied, Symbols::Equal).0.is_empty());
        assert!(Ties::of(&tied, Symbols::Free).0.is_empty());
    }
}
