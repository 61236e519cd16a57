/** NNRP for C and C++: load a model, infer, ask what it takes and gives, the same whichever runtime executes it.
 *
 *  This header is canonical. It needs C11 or C++17 and nothing but the standard library; link with libnnrp.
 *
 *  Structs    `struct_size` comes first and is sizeof(the struct) as its filler knows it. Fields are only ever appended. The library takes a
 *             shorter struct (an older caller) and one whose unknown tail is zero (a newer caller); anything else is INVALID_ARGUMENT. Read a
 *             field that is newer than ABI 1.0 only where the struct's `struct_size` covers it.
 *  Pointers   NULL is never dereferenced: where NULL has no meaning it is INVALID_ARGUMENT. Text is UTF-8 and ends with NUL.
 *  Ownership  What a caller passes is borrowed until the call returns. What a call gives out says below how it ends; each of these functions
 *             takes NULL and does nothing.
 *  Failure    Any status but NNRP_OK; nothing is given out then but the error. A defect of ours is NNRP_INTERNAL, never an unwinding.
 *  Threads    Every function may be called from any thread at any time, on the same engine too, except that the last call on a handle is the one
 *             that frees it. An error, a request, a response belongs to one thread at a time.
 *  Versions   nnrp_abi_version() >> 16 is the major version. When it is not NNRP_ABI_MAJOR, only nnrp_abi_version, nnrp_version and
 *             nnrp_status_name are safe to call. A library of a higher minor version serves every caller of a lower one.
 */
#ifndef NNRP_H_
#define NNRP_H_

#include <stddef.h>
#include <stdint.h>

#define NNRP_ABI_MAJOR 1
#define NNRP_ABI_MINOR 0

/* DLPack: the same declarations as <dlpack/dlpack.h>, version 1.2. Include that header before this one to have a newer version's additions;
 * included after this one it adds nothing and harms nothing. */
#ifdef DLPACK_DLPACK_H_
#if !defined(DLPACK_MAJOR_VERSION) || DLPACK_MAJOR_VERSION != 1
#error "nnrp.h needs DLPack 1.x: the dlpack.h included before it is of another major version"
#endif
#else
#define DLPACK_DLPACK_H_
#define DLPACK_MAJOR_VERSION 1
#define DLPACK_MINOR_VERSION 2

#ifdef __cplusplus
#define DLPACK_EXTERN_C extern "C"
#else
#define DLPACK_EXTERN_C
#endif

#if !defined(_WIN32)
#define DLPACK_DLL
#elif defined(DLPACK_EXPORTS)
#define DLPACK_DLL __declspec(dllexport)
#else
#define DLPACK_DLL __declspec(dllimport)
#endif

#define DLPACK_FLAG_BITMASK_READ_ONLY (1UL << 0UL)
#define DLPACK_FLAG_BITMASK_IS_COPIED (1UL << 1UL)
#define DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED (1UL << 2UL)

#ifdef __cplusplus
extern "C" {
typedef enum : int32_t {
#else
typedef enum {
#endif
  kDLCPU = 1,
  kDLCUDA = 2,
  kDLCUDAHost = 3,
  kDLOpenCL = 4,
  kDLVulkan = 7,
  kDLMetal = 8,
  kDLVPI = 9,
  kDLROCM = 10,
  kDLROCMHost = 11,
  kDLExtDev = 12,
  kDLCUDAManaged = 13,
  kDLOneAPI = 14,
  kDLWebGPU = 15,
  kDLHexagon = 16,
  kDLMAIA = 17,
  kDLTrn = 18,
} DLDeviceType;

typedef enum {
  kDLInt = 0U,
  kDLUInt = 1U,
  kDLFloat = 2U,
  kDLOpaqueHandle = 3U,
  kDLBfloat = 4U,
  kDLComplex = 5U,
  kDLBool = 6U,
  kDLFloat8_e3m4 = 7U,
  kDLFloat8_e4m3 = 8U,
  kDLFloat8_e4m3b11fnuz = 9U,
  kDLFloat8_e4m3fn = 10U,
  kDLFloat8_e4m3fnuz = 11U,
  kDLFloat8_e5m2 = 12U,
  kDLFloat8_e5m2fnuz = 13U,
  kDLFloat8_e8m0fnu = 14U,
  kDLFloat6_e2m3fn = 15U,
  kDLFloat6_e3m2fn = 16U,
  kDLFloat4_e2m1fn = 17U,
} DLDataTypeCode;

typedef struct {
  uint32_t major;
  uint32_t minor;
} DLPackVersion;

typedef struct {
  DLDeviceType device_type;
  int32_t device_id;
} DLDevice;

typedef struct {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} DLDataType;

typedef struct {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
} DLTensor;

typedef struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(struct DLManagedTensor* self);
} DLManagedTensor;

typedef struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(struct DLManagedTensorVersioned* self);
  uint64_t flags;
  DLTensor dl_tensor;
} DLManagedTensorVersioned;

#ifdef __cplusplus
}
#endif
#endif

#ifndef NNRP_API
#if defined(_WIN32) && !defined(NNRP_STATIC)
#define NNRP_API __declspec(dllimport)
#else
#define NNRP_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** The kind of an error, numbered as gRPC numbers its statuses. Any other number is a kind that was added later. */
typedef int32_t NnrpStatus;
enum {
  NNRP_OK = 0,
  NNRP_CANCELLED = 1,
  NNRP_RUNTIME_FAILURE = 2,
  NNRP_INVALID_ARGUMENT = 3,
  NNRP_DEADLINE_EXCEEDED = 4,
  NNRP_NOT_FOUND = 5,
  NNRP_ALREADY_EXISTS = 6,
  NNRP_PERMISSION_DENIED = 7,
  NNRP_RESOURCE_EXHAUSTED = 8,
  NNRP_FAILED_PRECONDITION = 9,
  NNRP_UNIMPLEMENTED = 12,
  NNRP_INTERNAL = 13,
  NNRP_UNAVAILABLE = 14,
  NNRP_UNAUTHENTICATED = 16,
};

/** Element types, in the order of datatypes.toml. The second column is DLPack's code and bits, one lane. */
typedef int32_t NnrpDatatype;
enum {
  NNRP_DATATYPE_UNSET = 0,
  NNRP_BOOL = 1,      /* kDLBool           8 */
  NNRP_UINT8 = 2,     /* kDLUInt           8 */
  NNRP_UINT16 = 3,    /* kDLUInt          16 */
  NNRP_UINT32 = 4,    /* kDLUInt          32 */
  NNRP_UINT64 = 5,    /* kDLUInt          64 */
  NNRP_INT8 = 6,      /* kDLInt            8 */
  NNRP_INT16 = 7,     /* kDLInt           16 */
  NNRP_INT32 = 8,     /* kDLInt           32 */
  NNRP_INT64 = 9,     /* kDLInt           64 */
  NNRP_FP16 = 10,     /* kDLFloat         16 */
  NNRP_FP32 = 11,     /* kDLFloat         32 */
  NNRP_FP64 = 12,     /* kDLFloat         64 */
  NNRP_BF16 = 13,     /* kDLBfloat        16 */
  NNRP_BYTES = 14,    /* kDLUInt 8, one dimension: see NnrpTensor */
  NNRP_FP8_E4M3 = 15, /* kDLFloat8_e4m3fn  8 */
  NNRP_FP8_E5M2 = 16, /* kDLFloat8_e5m2    8 */
  NNRP_INT4 = 17,     /* kDLInt            4, two a byte, the first in the low half */
  NNRP_UINT4 = 18,    /* kDLUInt           4, two a byte, the first in the low half */
};

/** What went wrong. Zero it once and set struct_size (NNRP_ERROR_INIT does both); every call that takes it ends what it held before.
 *
 *  code          the status that the call returned; NNRP_OK after a call that succeeded.
 *  retryable     1 when the same call may succeed later, unchanged.
 *  reason        what exactly, as errors.toml names it: "SHAPE_MISMATCH".
 *  message       for people: where, expected, got.
 *  details_json  for machines: a JSON object.
 *
 *  The texts are the library's until nnrp_error_clear, or the next call with this error; NULL after a call that succeeded.
 *  Since: ABI 1.0
 */
typedef struct NnrpError {
  size_t struct_size;
  NnrpStatus code;
  int32_t retryable;
  const char* reason;
  const char* message;
  const char* details_json;
} NnrpError;

#define NNRP_ERROR_INIT {sizeof(NnrpError), 0, 0, NULL, NULL, NULL}

/** Holds runtimes and models. Opaque. */
typedef struct NnrpEngine NnrpEngine;

/** Lets another thread stop a request. Opaque. */
typedef struct NnrpCancel NnrpCancel;

/** Settings of an engine.
 *
 *  settings_json  NULL for the defaults, or an object; a key that is not listed here is an error:
 *                   {"runtimes": {"onnxruntime": {"library": "/path/to/libonnxruntime.so"}}}, a file or the folder that holds it. Without it the
 *                   library is looked for: where NNRP_ONNXRUNTIME_LIBRARY points, in the Python environment of VIRTUAL_ENV, beside libnnrp,
 *                   where the system's loader looks.
 *  Since: ABI 1.0
 */
typedef struct NnrpEngineOptions {
  size_t struct_size;
  const char* settings_json;
} NnrpEngineOptions;

/** What to load, by whom and how.
 *
 *  name          what callers say: letters, digits, '.', '_', '-', not starting with '.'.
 *  version       NULL: "1".
 *  path          the file.
 *  runtime       NULL: "onnxruntime".
 *  options_json  NULL, or an object of the runtime's own options, verbatim.
 *  Since: ABI 1.0
 */
typedef struct NnrpModelSpec {
  size_t struct_size;
  const char* name;
  const char* version;
  const char* path;
  const char* runtime;
  const char* options_json;
} NnrpModelSpec;

/** One input or output of a signature.
 *
 *  ndim      length of shape and symbols; -1 for any rank, and both are NULL then.
 *  shape     -1 where any size will do.
 *  symbols   the names of symbolic dimensions, "batch"; an element is NULL where there is none.
 *  optional  1 when a request may leave it out.
 *  Since: ABI 1.0
 */
typedef struct NnrpTensorSpec {
  size_t struct_size;
  const char* name;
  NnrpDatatype datatype;
  int32_t optional;
  int32_t ndim;
  const int64_t* shape;
  const char* const* symbols;
} NnrpTensorSpec;

/** The named inputs and outputs of a model version, in the model's order. Since: ABI 1.0 */
typedef struct NnrpSignature {
  size_t struct_size;
  const char* model;
  const char* version;
  const NnrpTensorSpec* const* inputs;
  size_t n_inputs;
  const NnrpTensorSpec* const* outputs;
  size_t n_outputs;
} NnrpSignature;

/** A named tensor: DLPack's, and what DLPack cannot say.
 *
 *  tensor     in: CPU memory, one lane, at most 64 dimensions, little-endian. Strides may be NULL; elements that are not C-contiguous are copied,
 *             all others are read where they lie. Never written, its deleter never called.
 *             out: C-contiguous, read-only, the runtime's own memory (no copy).
 *  datatype   in: NNRP_DATATYPE_UNSET takes what the DLPack type says. out: always set.
 *  ndim,      out: the shape of the elements. in: may be 0 and NULL, and are the DLPack shape otherwise.
 *  shape
 *
 *  BYTES, the one datatype that DLPack lacks: `tensor` is kDLUInt 8 of one dimension over the elements one after another, each a 4-byte
 *  little-endian length and its content; `datatype` is NNRP_BYTES and `ndim` and `shape` say the shape of the elements (ndim 0: one element).
 *  Since: ABI 1.0
 */
typedef struct NnrpTensor {
  size_t struct_size;
  const char* name;
  DLManagedTensorVersioned* tensor;
  NnrpDatatype datatype;
  int32_t ndim;
  const int64_t* shape;
} NnrpTensor;

/** One inference request. Zero what you do not use.
 *
 *  version          NULL or "": the latest.
 *  id               NULL, or text that the response repeats.
 *  parameters_json  NULL, or an object of booleans, numbers and texts.
 *  inputs           n_inputs tensors in any order, by name.
 *  output_names     n_outputs names, in the order wanted; NULL and 0: all, in the signature's order.
 *  deadline_ns      the instant of nnrp_now_ns() after which nobody wants the answer; 0: none.
 *  cancel           NULL, or a handle that no other request uses at the moment.
 *  Since: ABI 1.0
 */
typedef struct NnrpRequest {
  size_t struct_size;
  const char* model;
  const char* version;
  const char* id;
  const char* parameters_json;
  const NnrpTensor* const* inputs;
  size_t n_inputs;
  const char* const* output_names;
  size_t n_outputs;
  uint64_t deadline_ns;
  NnrpCancel* cancel;
} NnrpRequest;

/** The answer to a request. Zero it once and set struct_size (NNRP_RESPONSE_INIT does both); nnrp_infer ends what it held before,
 *  once the run is over: an output may be the next request's input.
 *
 *  model, version  who answered; id: the request's, or NULL.
 *  outputs         n_outputs tensors. To keep one beyond nnrp_response_clear, take its `tensor` and set that field to NULL: it is yours then, until
 *                  you call its own deleter, and outlives the response and the engine.
 *  owner           the library's own.
 *  Since: ABI 1.0
 */
typedef struct NnrpResponse {
  size_t struct_size;
  const char* model;
  const char* version;
  const char* id;
  NnrpTensor* const* outputs;
  size_t n_outputs;
  void* owner;
} NnrpResponse;

#define NNRP_RESPONSE_INIT {sizeof(NnrpResponse), NULL, NULL, NULL, NULL, 0, NULL}

/** The library's ABI version, major << 16 | minor. Since: ABI 1.0 */
NNRP_API uint32_t nnrp_abi_version(void);

/** The library's own version, "0.1.0". Static. Since: ABI 1.0 */
NNRP_API const char* nnrp_version(void);

/** The name of a status, "INVALID_ARGUMENT"; NULL for a number that is none. Static. Since: ABI 1.0 */
NNRP_API const char* nnrp_status_name(NnrpStatus status);

/** Nanoseconds on the clock of deadlines, CLOCK_MONOTONIC where there is one. Since: ABI 1.0 */
NNRP_API uint64_t nnrp_now_ns(void);

/** End the texts of an error and set it back to NNRP_OK. Since: ABI 1.0 */
NNRP_API void nnrp_error_clear(NnrpError* error);

/** End a text that a call gave out. Since: ABI 1.0 */
NNRP_API void nnrp_string_free(char* text);

/** Make an engine without models.
 *
 *  options  NULL for the defaults.
 *  engine   // out: ends by nnrp_engine_free
 *  error    optional.  // out
 *
 *  A runtime whose library is named in the settings and cannot be used is an error here; one that was looked for and not found, at nnrp_load.
 *  Since: ABI 1.0
 */
NNRP_API NnrpStatus nnrp_engine_create(const NnrpEngineOptions* options, NnrpEngine** engine, NnrpError* error);

/** End an engine and unload its models, after every other call on it has returned. Outputs that were taken live on. Since: ABI 1.0 */
NNRP_API void nnrp_engine_free(NnrpEngine* engine);

/** Tell the engine's runtimes: a JSON array of {"name", "version", "formats", "devices", "options"}, the last a JSON Schema of a model's options.
 *
 *  json   // out: ends by nnrp_string_free
 *  error  optional.  // out
 *
 *  Since: ABI 1.0
 */
NNRP_API NnrpStatus nnrp_runtimes(NnrpEngine* engine, char** json, NnrpError* error);

/** Load one model version. Requests find it once this returns.
 *
 *  error  optional.  // out
 *
 *  Since: ABI 1.0
 */
NNRP_API NnrpStatus nnrp_load(NnrpEngine* engine, const NnrpModelSpec* spec, NnrpError* error);

/** Unload a model version. Requests that go on are finished.
 *
 *  version  NULL or "": all versions.
 *  error    optional.  // out
 *
 *  Since: ABI 1.0
 */
NNRP_API NnrpStatus nnrp_unload(NnrpEngine* engine, const char* name, const char* version, NnrpError* error);

/** Tell what is loaded: a JSON array of {"name", "version", "runtime", "runtime_version", "format", "device", "settings"}, the last as it was honoured.
 *
 *  json   // out: ends by nnrp_string_free
 *  error  optional.  // out
 *
 *  Since: ABI 1.0
 */
NNRP_API NnrpStatus nnrp_models(NnrpEngine* engine, char** json, NnrpError* error);

/** Tell a model's metadata as the Open Inference Protocol writes it: {"name", "versions", "platform", "inputs", "outputs"}.
 *
 *  version  NULL or "": the latest.
 *  json     // out: ends by nnrp_string_free
 *  error    optional.  // out
 *
 *  Since: ABI 1.0
 */
NNRP_API NnrpStatus nnrp_metadata(NnrpEngine* engine, const char* name, const char* version, char** json, NnrpError* error);

/** Give a model's signature, for programs that would rather not read JSON.
 *
 *  version    NULL or "": the latest.
 *  signature  // out: ends by nnrp_signature_free, with all that it points to
 *  error      optional.  // out
 *
 *  Since: ABI 1.0
 */
NNRP_API NnrpStatus nnrp_signature(NnrpEngine* engine, const char* name, const char* version, const NnrpSignature** signature, NnrpError* error);

/** End a signature. Since: ABI 1.0 */
NNRP_API void nnrp_signature_free(const NnrpSignature* signature);

/** Run one request on the calling thread, which may have to wait for its turn.
 *
 *  request   Borrowed, with all that it points to, until return.
 *  response  // out: ends by nnrp_response_clear
 *  error     optional.  // out
 *
 *  Everything is checked before a runtime sees it: names, presence, datatypes, ranks, dimensions, byte sizes.
 *  Since: ABI 1.0
 */
NNRP_API NnrpStatus nnrp_infer(NnrpEngine* engine, const NnrpRequest* request, NnrpResponse* response, NnrpError* error);

/** End a response with the outputs that were not taken, and set it back to empty. Since: ABI 1.0 */
NNRP_API void nnrp_response_clear(NnrpResponse* response);

/** Make a handle that stops a request.
 *
 *  cancel  // out: ends by nnrp_cancel_free
 *  error   optional.  // out
 *
 *  Since: ABI 1.0
 */
NNRP_API NnrpStatus nnrp_cancel_create(NnrpCancel** cancel, NnrpError* error);

/** Stop the request that carries this handle, and every later one that does: NNRP_CANCELLED. From any thread, any number of times. Since: ABI 1.0 */
NNRP_API void nnrp_cancel_raise(NnrpCancel* cancel);

/** End a handle, after the request that carries it has returned. Since: ABI 1.0 */
NNRP_API void nnrp_cancel_free(NnrpCancel* cancel);

/** Describe C-contiguous CPU memory as a tensor that stays the caller's.
 *
 *  data   the elements; NULL when there are none.
 *  code   DLPack's type code, kDLFloat; bits: of one element.
 *  shape  ndim dimensions, alive as long as the tensor.
 *
 *  Part of this header, not of the library. Since: ABI 1.0
 */
static inline DLManagedTensorVersioned nnrp_borrow(const void* data, uint8_t code, uint8_t bits, int32_t ndim, const int64_t* shape) {
  DLManagedTensorVersioned tensor;
  tensor.version.major = DLPACK_MAJOR_VERSION;
  tensor.version.minor = DLPACK_MINOR_VERSION;
  tensor.manager_ctx = NULL;
  tensor.deleter = NULL;
  tensor.flags = DLPACK_FLAG_BITMASK_READ_ONLY;
  tensor.dl_tensor.data = (void*)data;
  tensor.dl_tensor.device.device_type = kDLCPU;
  tensor.dl_tensor.device.device_id = 0;
  tensor.dl_tensor.ndim = ndim;
  tensor.dl_tensor.dtype.code = code;
  tensor.dl_tensor.dtype.bits = bits;
  tensor.dl_tensor.dtype.lanes = 1;
  tensor.dl_tensor.shape = (int64_t*)shape;
  tensor.dl_tensor.strides = NULL;
  tensor.dl_tensor.byte_offset = 0;
  return tensor;
}

#ifdef __cplusplus
}
#endif

#endif /* NNRP_H_ */
