//! The functions of OpenVINO's C library, as its header declares them; only those that are called here.
use crate::foreign::{functions, opaque};
use std::ffi::{c_char, c_void};

/// What every function that can fail returns; 0 is OK.
pub(super) type Status = i32;

opaque! {
    /// `ov_core_t`
    Core;
    /// `ov_model_t`
    Model;
    /// `ov_output_const_port_t`
    Port;
    /// `ov_compiled_model_t`
    Compiled;
    /// `ov_infer_request_t`
    Request;
    /// `ov_tensor_t`
    TensorHandle;
}

/// `ov_shape_t`
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct RawShape {
    pub(super) rank: i64,
    pub(super) dims: *mut i64,
}

/// `ov_dimension_t`: the least and the most, the most `-1` where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Dimension {
    pub(super) least: i64,
    pub(super) most: i64,
}

/// `ov_partial_shape_t`
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct RawPartialShape {
    pub(super) rank: Dimension,
    pub(super) dims: *mut Dimension,
}

/// `ov_version_t`
#[repr(C)]
pub(super) struct RawVersion {
    pub(super) build: *const c_char,
    pub(super) description: *const c_char,
}

/// `ov_available_devices_t`
#[repr(C)]
pub(super) struct RawDevices {
    pub(super) names: *mut *mut c_char,
    pub(super) count: usize,
}

functions! {
    ov_get_openvino_version(*mut RawVersion) -> Status;
    ov_version_free(*mut RawVersion);
    ov_get_last_err_msg() -> *const c_char;
    ov_free(*const c_char);

    ov_core_create(*mut *mut Core) -> Status;
    ov_core_read_model(*const Core, *const c_char, *const c_char, *mut *mut Model) -> Status;
    ov_core_compile_model(*const Core, *const Model, *const c_char, usize, *mut *mut Compiled; ...) -> Status;
    ov_core_get_property(*const Core, *const c_char, *const c_char, *mut *mut c_char) -> Status;
    ov_core_get_available_devices(*const Core, *mut RawDevices) -> Status;
    ov_available_devices_free(*mut RawDevices);

    ov_model_free(*mut Model);
    ov_model_inputs_size(*const Model, *mut usize) -> Status;
    ov_model_outputs_size(*const Model, *mut usize) -> Status;
    ov_model_const_input_by_index(*const Model, usize, *mut *mut Port) -> Status;
    ov_model_const_output_by_index(*const Model, usize, *mut *mut Port) -> Status;
    ov_model_reshape_by_port_indexes(*const Model, *const usize, *const RawPartialShape, usize) -> Status;

    ov_output_const_port_free(*mut Port);
    ov_port_get_any_name(*const Port, *mut *mut c_char) -> Status;
    ov_port_get_element_type(*const Port, *mut i32) -> Status;
    ov_port_get_partial_shape(*const Port, *mut RawPartialShape) -> Status;
    ov_partial_shape_free(*mut RawPartialShape);

    ov_compiled_model_free(*mut Compiled);
    ov_compiled_model_create_infer_request(*const Compiled, *mut *mut Request) -> Status;
    ov_compiled_model_get_property(*const Compiled, *const c_char, *mut *mut c_char) -> Status;

    ov_infer_request_free(*mut Request);
    ov_infer_request_set_input_tensor_by_index(*mut Request, usize, *const TensorHandle) -> Status;
    ov_infer_request_get_output_tensor_by_index(*const Request, usize, *mut *mut TensorHandle) -> Status;
    ov_infer_request_set_output_tensor_by_index(*mut Request, usize, *const TensorHandle) -> Status;
    ov_infer_request_infer(*mut Request) -> Status;
    ov_infer_request_start_async(*mut Request) -> Status;
    ov_infer_request_wait(*mut Request) -> Status;
    ov_infer_request_cancel(*mut Request) -> Status;

    ov_tensor_free(*mut TensorHandle);
    ov_tensor_create_from_host_ptr(i32, RawShape, *mut c_void, *mut *mut TensorHandle) -> Status;
    ov_tensor_get_element_type(*const TensorHandle, *mut i32) -> Status;
    ov_tensor_get_shape(*const TensorHandle, *mut RawShape) -> Status;
    ov_tensor_get_size(*const TensorHandle, *mut usize) -> Status;
    ov_tensor_get_byte_size(*const TensorHandle, *mut usize) -> Status;
    ov_tensor_data(*const TensorHandle, *mut *mut c_void) -> Status;
    ov_shape_free(*mut RawShape) -> Status;
}
