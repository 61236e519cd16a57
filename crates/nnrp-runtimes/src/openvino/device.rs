//! Devices: which there are, and what is asked for. One that cannot be had is an error, never a fallback.
use super::library::Library;
use super::options::Options;
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason, Result};
use std::ffi::CString;

/// What spreads a model or its runs over other devices.
const OVER_OTHERS: [&str; 3] = ["AUTO", "HETERO", "MULTI"];

/// Those of them that choose none themselves.
const NEED_OTHERS: [&str; 2] = ["HETERO", "MULTI"];
/// The property that names the others.
const PRIORITIES: &str = "MULTI_DEVICE_PRIORITIES";

/// A device by OpenVINO's own name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// `CPU`, `GPU.0`, `AUTO:GPU,CPU`.
    pub(super) name: CString,
    /// `AUTO`, when the runs go to other devices.
    pub(super) over: Option<CString>,
    /// The devices that may run it.
    pub(super) parts: Vec<CString>,
}

impl Device {
    /// The device that a model's description asks for.
    ///
    /// # Errors
    /// `DEVICE_NOT_FOUND`, with those that are there.
    pub(super) fn find(library: &Library, asked: &str) -> Result<Device> {
        // Found without a look at the others, whose plug-ins take time to open.
        if asked == "auto" || asked.eq_ignore_ascii_case("cpu") {
            return Ok(Device { name: c"CPU".to_owned(), over: None, parts: vec![c"CPU".to_owned()] });
        }
        let available = library.devices_for_load()?;
        parse(asked, &available).ok_or_else(|| {
            let asked = excerpt(asked);
            let message = format!("device '{asked}' is not there; available to openvino: {}, and {} over them", available.join(", "), OVER_OTHERS.join(", "));
            NnrpError::new(Reason::DeviceNotFound, message).with("device", asked).with("available", available)
        })
    }

    /// Refuses what needs devices to spread a model over and is told of none, neither by its name nor by an option.
    ///
    /// # Errors
    /// `INVALID_OPTION`.
    pub(super) fn check_told(&self, options: &Options) -> Result<()> {
        let name = self.name.to_string_lossy();
        if !NEED_OTHERS.contains(&&*name) || options.properties.contains_key(PRIORITIES) {
            return Ok(());
        }
        let expected = format!("{name}:CPU,GPU");
        let message = format!("device: expected the devices by their names, as in '{expected}', got '{name}'");
        Err(NnrpError::new(Reason::InvalidOption, message).with("path", "device").with("expected", expected).with("got", &*name).with("runtime", super::NAME))
    }

    /// Whether the CPU may run it.
    pub(super) fn has_cpu(&self) -> bool {
        self.parts.iter().any(|part| part.as_bytes() == b"CPU")
    }
}

fn parse(asked: &str, available: &[String]) -> Option<Device> {
    let name = asked.to_ascii_uppercase();
    let (kind, list) = name.split_once(':').map_or((&*name, None), |(kind, list)| (kind, Some(list)));
    let over = OVER_OTHERS.contains(&kind).then(|| CString::new(kind).ok()).flatten();
    let parts: Vec<String> = match (&over, list) {
        (None, None) => vec![name.clone()],
        (None, Some(_)) => return None,
        (Some(_), None) => available.to_vec(),
        // `-GPU` leaves one out, `CPU(4)` says how many runs at once.
        (Some(_), Some(list)) => {
            list.split(',').filter(|part| !part.starts_with('-')).map(|part| part.split('(').next().unwrap_or_default().to_owned()).collect()
        }
    };
    let is_there = |part: &String| {
        let numbered = |known: &String| known.strip_prefix(part.as_str()).is_some_and(|rest| rest.starts_with('.'));
        available.iter().any(|known| known == part || numbered(known) || (part.strip_suffix(".0") == Some(known) && known != "CPU"))
    };
    if parts.is_empty() || !parts.iter().all(is_there) {
        return None;
    }
    let parts = parts.into_iter().map(|part| CString::new(part).ok()).collect::<Option<_>>()?;
    Some(Device { name: CString::new(name).ok()?, over, parts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(asked: &str) -> Option<Vec<String>> {
        let available = ["CPU", "GPU.0", "GPU.1", "NPU"].map(str::to_owned);
        Some(parse(asked, &available)?.parts.into_iter().map(|part| part.into_string().unwrap()).collect())
    }

    #[test]
    fn a_device_goes_by_openvinos_name() {
        assert_eq!(parts("npu"), Some(vec!["NPU".to_owned()]));
        assert_eq!(parts("GPU"), Some(vec!["GPU".to_owned()]));
        assert_eq!(parts("gpu.1"), Some(vec!["GPU.1".to_owned()]));
        assert_eq!(parts("NPU.0"), Some(vec!["NPU.0".to_owned()]));
        assert_eq!(parts("AUTO:GPU,-NPU,CPU(2)"), Some(vec!["GPU".to_owned(), "CPU".to_owned()]));
        assert_eq!(parts("hetero").map(|parts| parts.len()), Some(4));
    }

    #[test]
    fn what_is_not_there_is_no_device() {
        for asked in ["cuda:0", "GPU.7", "CPU.0", "CPU:0", "AUTO:TPU", "AUTO:", "AUTO:-CPU", "", "openvino:", "N\0PU", "BATCH:CPU"] {
            assert_eq!(parts(asked), None, "{asked}");
        }
    }
}
