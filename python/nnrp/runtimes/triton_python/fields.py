"""The fields of Triton's ModelConfig, the message that a config.pbtxt is, as a table: names, numbers and types are the protocol's."""

from __future__ import annotations

_TYPES = "INVALID BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING BF16"

#: Enumeration → its values, from 0.
ENUMS = {
    "DataType": " ".join(f"TYPE_{name}" for name in _TYPES.split()),
    "Format": "FORMAT_NONE FORMAT_NHWC FORMAT_NCHW",
    "Kind": "KIND_AUTO KIND_GPU KIND_CPU KIND_MODEL",
    "Device": "KIND_NVDLA",
    "Priority": "PRIORITY_DEFAULT PRIORITY_MAX PRIORITY_MIN",
    "TimeoutAction": "REJECT DELAY",
    "Control": "CONTROL_SEQUENCE_START CONTROL_SEQUENCE_READY CONTROL_SEQUENCE_END CONTROL_SEQUENCE_CORRID",
    "BatchInputKind": "BATCH_ELEMENT_COUNT BATCH_ACCUMULATED_ELEMENT_COUNT BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO "
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE BATCH_ITEM_SHAPE BATCH_ITEM_SHAPE_FLATTEN",
    "BatchOutputKind": "BATCH_SCATTER_WITH_INPUT_SHAPE",
}

#: Message → its fields, each `name:number:type`; `*` is repeated, `?group` one of a group, `{key}` a map with keys of that type.
MESSAGES = {
    "Reshape": "shape:1:int64*",
    "Input": "name:1:string data_type:2:DataType format:3:Format dims:4:int64* reshape:5:Reshape is_shape_tensor:6:bool "
    "allow_ragged_batch:7:bool optional:8:bool is_non_linear_format_io:9:bool",
    "Output": "name:1:string data_type:2:DataType dims:3:int64* label_filename:4:string reshape:5:Reshape is_shape_tensor:6:bool "
    "is_non_linear_format_io:7:bool",
    "Resource": "name:1:string global:2:bool count:3:uint32",
    "RateLimiter": "resources:1:Resource* priority:2:uint32",
    "SecondaryDevice": "kind:1:Device device_id:2:int64",
    "InstanceGroup": "name:1:string count:2:int32 gpus:3:int32* kind:4:Kind profile:5:string* rate_limiter:6:RateLimiter passive:7:bool "
    "secondary_devices:8:SecondaryDevice* host_policy:9:string",
    "BatchInput": "kind:1:BatchInputKind target_name:2:string* data_type:3:DataType source_input:4:string*",
    "BatchOutput": "target_name:1:string* kind:2:BatchOutputKind source_input:3:string*",
    "Latest": "num_versions:1:uint32",
    "All": "",
    "Specific": "versions:1:int64*",
    "VersionPolicy": "latest:1:Latest?policy all:2:All?policy specific:3:Specific?policy",
    "Graph": "level:1:int32",
    "Shape": "dim:1:int64*",
    "LowerBound": "batch_size:1:int32 input:2:Shape{string}",
    "GraphSpec": "batch_size:1:int32 input:2:Shape{string} graph_lower_bound:3:LowerBound",
    "Cuda": "graphs:1:bool busy_wait_events:2:bool graph_spec:3:GraphSpec* output_copy_stream:4:bool",
    "Accelerator": "name:1:string parameters:2:string{string}",
    "Accelerators": "gpu_execution_accelerator:1:Accelerator* cpu_execution_accelerator:2:Accelerator*",
    "Pinned": "enable:1:bool",
    "Optimization": "graph:1:Graph priority:2:Priority cuda:3:Cuda execution_accelerators:4:Accelerators input_pinned_memory:5:Pinned "
    "output_pinned_memory:6:Pinned gather_kernel_buffer_threshold:7:uint32 eager_batching:8:bool",
    "QueuePolicy": "timeout_action:1:TimeoutAction default_timeout_microseconds:2:uint64 allow_timeout_override:3:bool max_queue_size:4:uint32",
    "DynamicBatching": "preferred_batch_size:1:int32* max_queue_delay_microseconds:2:uint64 preserve_ordering:3:bool priority_levels:4:uint64 "
    "default_priority_level:5:uint64 default_queue_policy:6:QueuePolicy priority_queue_policy:7:QueuePolicy{uint64}",
    "SequenceControl": "kind:1:Control int32_false_true:2:int32* fp32_false_true:3:float* data_type:4:DataType bool_false_true:5:bool*",
    "ControlInput": "name:1:string control:2:SequenceControl*",
    "InitialState": "data_type:1:DataType dims:2:int64* zero_data:3:bool?state_data data_file:4:string?state_data name:5:string",
    "State": "input_name:1:string output_name:2:string data_type:3:DataType dims:4:int64* initial_state:5:InitialState* "
    "use_same_buffer_for_input_output:6:bool use_growable_memory:7:bool",
    "Direct": "max_queue_delay_microseconds:1:uint64 minimum_slot_utilization:2:float",
    "Oldest": "max_candidate_sequences:1:int32 preferred_batch_size:2:int32* max_queue_delay_microseconds:3:uint64 preserve_ordering:4:bool",
    "SequenceBatching": "max_sequence_idle_microseconds:1:uint64 control_input:2:ControlInput* direct:3:Direct?strategy oldest:4:Oldest?strategy "
    "state:5:State* iterative_sequence:6:bool",
    "Step": "model_name:1:string model_version:2:int64 input_map:3:string{string} output_map:4:string{string} model_namespace:5:string",
    "Ensembling": "step:1:Step* max_inflight_requests:2:uint32",
    "Parameter": "string_value:1:string",
    "WarmupInput": "data_type:1:DataType dims:2:int64* zero_data:3:bool?input_data_type random_data:4:bool?input_data_type "
    "input_data_file:5:string?input_data_type",
    "Warmup": "name:1:string batch_size:2:uint32 inputs:3:WarmupInput{string} count:4:uint32",
    "Operations": "op_library_filename:1:string*",
    "TransactionPolicy": "decoupled:1:bool",
    "Agent": "name:1:string parameters:2:string{string}",
    "Agents": "agents:1:Agent*",
    "ResponseCache": "enable:1:bool",
    "MetricIdentifier": "family:1:string",
    "HistogramOptions": "buckets:1:double*",
    "MetricControl": "metric_identifier:1:MetricIdentifier histogram_options:2:HistogramOptions",
    "Metrics": "metric_control:1:MetricControl*",
    "ModelConfig": "name:1:string platform:2:string version_policy:3:VersionPolicy max_batch_size:4:int32 input:5:Input* output:6:Output* "
    "instance_group:7:InstanceGroup* default_model_filename:8:string cc_model_filenames:9:string{string} metric_tags:10:string{string} "
    "dynamic_batching:11:DynamicBatching?scheduling_choice optimization:12:Optimization sequence_batching:13:SequenceBatching?scheduling_choice "
    "parameters:14:Parameter{string} ensemble_scheduling:15:Ensembling?scheduling_choice model_warmup:16:Warmup* backend:17:string "
    "model_operations:18:Operations model_transaction_policy:19:TransactionPolicy batch_input:20:BatchInput* batch_output:21:BatchOutput* "
    "model_repository_agents:23:Agents response_cache:24:ResponseCache runtime:25:string model_metrics:26:Metrics",
}
