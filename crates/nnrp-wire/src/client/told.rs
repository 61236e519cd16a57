//! What a server told of a model, against which its answers are held: a client has no session that it could look into.
use nnrp_core::error::excerpt;
use nnrp_core::model::TensorSpec;
use nnrp_core::{NnrpError, Reason, Response, Result};
use std::borrow::Cow;

/// A model's outputs by its metadata; where these tell of none, nothing is held against them.
pub struct Told {
    model: String,
    outputs: Vec<TensorSpec>,
}

impl Told {
    /// What the metadata of a model say; a shape of `[-1]` is any, which is how one of any rank shows.
    pub fn new(model: &str, mut outputs: Vec<TensorSpec>) -> Told {
        for spec in &mut outputs {
            spec.shape = spec.shape.take().filter(|shape| shape.as_slice() != [-1]);
        }
        Told { model: model.to_owned(), outputs }
    }

    /// Gives the outputs that were asked for, or all, in that order, and no others.
    ///
    /// # Errors
    /// `CONNECTION_FAILED`: there are others, or one is missing.
    pub fn whole(&self, asked: &[Cow<'_, str>], mut response: Response) -> Result<Response> {
        let count = if asked.is_empty() { self.outputs.len() } else { asked.len() };
        for index in (0..count).take_while(|_| !self.outputs.is_empty()) {
            let name = match asked.get(index) {
                Some(name) => &**name,
                None => &*self.outputs[index].name,
            };
            match response.outputs[index..].iter().position(|output| *output.name == *name) {
                Some(0) => {}
                Some(at) => response.outputs.swap(index, index + at),
                None => return Err(self.wrong(name, "an output of this name", "none")),
            }
        }
        match response.outputs.get(count).filter(|_| !self.outputs.is_empty()) {
            Some(more) => Err(self.wrong(&more.name, "no output that was not asked for", "one of this name")),
            None => Ok(response),
        }
    }

    /// Holds the datatype and the shape of each output against the metadata.
    ///
    /// # Errors
    /// `CONNECTION_FAILED`: one does not fit, or the metadata tell of none of its name.
    pub fn fits(&self, response: &Response) -> Result<()> {
        for (index, output) in response.outputs.iter().enumerate().take_while(|_| !self.outputs.is_empty()) {
            let same = |spec: &&TensorSpec| spec.name == output.name;
            let Some(spec) = self.outputs.get(index).filter(same).or_else(|| self.outputs.iter().find(same)) else {
                let known: Vec<&str> = self.outputs.iter().map(|spec| &*spec.name).collect();
                return Err(self.wrong(&output.name, &format!("one of {}", known.join(", ")), "an output of this name"));
            };
            let (datatype, shape) = (output.tensor.datatype, output.tensor.shape.as_slice());
            let fits = |told: &[i64]| told.len() == shape.len() && told.iter().zip(shape).all(|(told, got)| *told < 0 || told == got);
            if datatype != spec.datatype || !spec.shape.as_deref().is_none_or(fits) {
                let expected = spec.shape.as_ref().map_or_else(|| spec.datatype.name().to_owned(), |told| format!("{} {told:?}", spec.datatype.name()));
                return Err(self.wrong(&output.name, &expected, &format!("{} {shape:?}", datatype.name())));
            }
        }
        Ok(())
    }

    /// Who asked has done nothing wrong (spec §5.1).
    #[cold]
    fn wrong(&self, output: &str, expected: &str, got: &str) -> NnrpError {
        let (model, output, expected) = (excerpt(&self.model), excerpt(output), excerpt(expected));
        let message = format!("model '{model}': the answer is not what the server told of it: output '{output}': expected {expected}, got {got}");
        NnrpError::new(Reason::ConnectionFailed, message).with("model", model).with("output", output).with("expected", expected).with("got", got)
    }
}
