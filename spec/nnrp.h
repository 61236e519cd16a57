/** NNRP for C and C++: load a model, infer, ask what it takes and gives, the same whichever runtime executes it; and be such a runtime.
 *
 *  This header is canonical. It needs C11 or C++17 and nothing but the standard library. Applications link with libnnrp; a runtime (a plug-in) links
 *  with nothing of ours: see "A runtime of your own" at the end.
 *
 *  Structs    `struct_size` comes first and is sizeof(the struct) as its filler knows it. Fields are only ever appended. The library takes a
 *             shorter struct (an older caller) and one whose unknown tail is zero (a newer caller); anything else is INVALID_ARGUMENT. Read a
 *             field that is newer than ABI 1.0 only where the struct's `struct_size` covers it.
 *  Pointers   NULL is never dereferenced: where NULL has no meaning it is INVALID_ARGUMENT. Text is UTF-8 and ends with NUL.
 *  Ownership  What a caller passes is borrowed until the call returns. What a call gives out says below how it ends; each of these functions
 *             takes NULL and does nothing.
 *  Failure    Any status but NNRP_OK; nothing is given out then but the error. A defect of ours is NNRP_INTERNAL, never an unwinding.
 *  Threads    Every function may be called from any thread at any time, on the same engine too, except that the last call on a handle is the one
 *             that frees it. An error, a request, a response, a stream belongs to one thread at a time.
 *  Versions   nnrp_abi_version() >> 16 is the major version. When it is not NNRP_ABI_MAJOR, only nnrp_abi_version, nnrp_version and
 *             nnrp_status_name are safe to call. A library of a higher minor version serves every caller of a lower one.
 */
#ifndef NNRP_H_
#define NNRP_H_

#include <stddef.h>
#include <stdint.h>

#define NNRP_ABI_MAJOR 1
#define NNRP_ABI_MINOR 2
#define NNRP_ABI_VERSION (((uint32_t)NNRP_ABI_MAJOR << 16) | NNRP_ABI_MINOR)

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

/** The answers to one request, one after another. Opaque. Since: ABI 1.2 */
typedef struct NnrpStream NnrpStream;

/** What nnrp_stream_next found. Since: ABI 1.2 */
typedef int32_t NnrpNext;
enum {
  NNRP_NEXT_END = 0,    /* there are no more */
  NNRP_NEXT_ANSWER = 1, /* the next one */
  NNRP_NEXT_WAIT = 2,   /* none yet, and there may be more */
};

/** Settings of an engine.
 *
 *  settings_json  NULL for the defaults, or an object; a key that is not listed here is an error:
 *                   {"runtimes": {"onnxruntime": {"library": "/path/to/libonnxruntime.so"}}}, a file or the folder that holds it. Without it the
 *                   library is looked for: where NNRP_ONNXRUNTIME_LIBRARY points, in the Python environment of VIRTUAL_ENV, beside libnnrp,
 *                   where the system's loader looks.
 *                   {"runtimes": {"plugins": ["/path/to/libyours.so"]}}, plug-ins by their files. Those in the folder that NNRP_PLUGINS names are
 *                   opened too.
 *                   {"isolation": {"command": ["/path/to/nnrp-host"], "load_timeout_ms": 300000, "stop_grace_ms": 10000,
 *                   "max_output_bytes": 1073741824}}, for models in processes of their own (since ABI 1.1): the program that hosts one, and its words;
 *                   how long a load may take; how long a run may go on after nobody waits for it any more, before the process is ended; how large
 *                   all outputs of one run may be. Without `command` the program is looked for: where NNRP_HOST points, then nnrp-host beside
 *                   libnnrp (beside the program that libnnrp is linked into). It gets these settings as one more word, and finds the same runtimes
 *                   by them.
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
 *  runtime       NULL: any that reads the file. A name, or several in the order wanted, "openvino,onnxruntime".
 *  options_json  NULL, or an object of the runtime's own options, verbatim.
 *  device        NULL: "auto". "cpu", "cuda:0", or a device by the runtime's own name.
 *  precision     NULL: "strict". "bf16", "fp16", "int8"; "fast" for whatever the runtime finds fastest.
 *  isolation     NULL: "none". "process" gives the model a process of its own, whose crash is NNRP_UNAVAILABLE, RUNTIME_CRASHED, for the requests
 *                that it held, and a restart. Linux; see NnrpEngineOptions for the program. Since: ABI 1.1
 *  Since: ABI 1.0
 */
typedef struct NnrpModelSpec {
  size_t struct_size;
  const char* name;
  const char* version;
  const char* path;
  const char* runtime;
  const char* options_json;
  const char* device;
  const char* precision;
  const char* isolation;
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
 *  parameters_json  NULL, or an object of booleans, numbers and texts; `timeout`, in microseconds, counts from the call.
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
 *  once the run is over: an output may be the next request's input. So an error of any kind leaves it empty, except where the response itself is wrong
 *  (NULL, or its struct_size): then nothing of it is touched.
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
 *  A plug-in of NNRP_PLUGINS that cannot be used is told by nnrp_runtimes.
 *  Since: ABI 1.0
 */
NNRP_API NnrpStatus nnrp_engine_create(const NnrpEngineOptions* options, NnrpEngine** engine, NnrpError* error);

/** End an engine and unload its models, after every other call on it has returned. Outputs that were taken live on. Since: ABI 1.0 */
NNRP_API void nnrp_engine_free(NnrpEngine* engine);

/** Tell the engine's runtimes: a JSON array of {"name", "version", "formats", "devices", "options"}, the last a JSON Schema of a model's options;
 *  with "error" where it cannot be used: {"code", "reason", "message", "details"}.
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

/** Load one model version that a JSON object describes: all that NnrpModelSpec says, and what it does not.
 *
 *  description  {"name": …, "path": …}, and as needed "version", "format", "runtime" (a text or a list), "device", "precision", "symbols",
 *               "options", "isolation", "inputs", "outputs" (what callers see in place of what the runtime tells), "labels",
 *               "digests" (paths, and the SHA-256 that each must have at each load). A key that is not known is an error.
 *  error        optional.  // out
 *
 *  Since: ABI 1.0
 */
NNRP_API NnrpStatus nnrp_load_json(NnrpEngine* engine, const char* description, NnrpError* error);

/** Unload a model version. Requests that go on are finished.
 *
 *  version  NULL or "": all versions.
 *  error    optional.  // out
 *
 *  Since: ABI 1.0
 */
NNRP_API NnrpStatus nnrp_unload(NnrpEngine* engine, const char* name, const char* version, NnrpError* error);

/** Tell what is loaded: a JSON array of {"name", "version", "runtime", "runtime_version", "format", "device", "settings", "streams"}: the settings as they
 *  were honoured, and whether a request has any number of answers (since ABI 1.2).
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

/** Begin to answer one request with all the answers that the model gives: any number where it streams, or else one. A model that streams is asked only so.
 *
 *  request  Borrowed, with all that it points to, until return, but for `cancel`: the stream carries it until it is closed. Inputs are copied.
 *           `deadline_ns` is the whole stream's.
 *  stream   // out: ends by nnrp_stream_close
 *  error    optional.  // out
 *
 *  The model runs on a thread of the engine's. A few answers may wait for their reader; then the model waits.
 *  Since: ABI 1.2
 */
NNRP_API NnrpStatus nnrp_stream_open(NnrpEngine* engine, const NnrpRequest* request, NnrpStream** stream, NnrpError* error);

/** Wait for the next answer of a stream.
 *
 *  until_ns  the instant of nnrp_now_ns() to wait for at most, and NNRP_NEXT_WAIT then; 0: as long as it takes. 1 takes what is there.
 *  next      what was found.  // out
 *  response  the answer, of NNRP_NEXT_ANSWER; empty otherwise.  // out: ends by nnrp_response_clear
 *  error     optional.  // out
 *
 *  An error that ends the stream comes behind the answers before it, once; NNRP_NEXT_END is all there is after it. A cancelled request's call
 *  returns within 0.1 s.
 *  Since: ABI 1.2
 */
NNRP_API NnrpStatus nnrp_stream_next(NnrpStream* stream, uint64_t until_ns, NnrpNext* next, NnrpResponse* response, NnrpError* error);

/** End a stream, and cancel its request if that goes on. Before its engine ends. Since: ABI 1.2 */
NNRP_API void nnrp_stream_close(NnrpStream* stream);

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

/** End a handle, after the request that carries it has returned, or its stream was closed. Since: ABI 1.0 */
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

/* A runtime of your own
 *
 * A shared library that exports nnrp_runtime_v1 is a runtime (a plug-in), whatever it is written in. The engine (the host) checks every request before
 * a plug-in sees it, and everything that a plug-in gives; docs/guide/write-a-runtime.md tells it step by step, bindings/c/runtime_sample.c is one.
 *
 *  Structs    as everywhere here. The host's may be longer or shorter than yours: its `struct_size` says how much is there. All that ABI 1.0 has is.
 *  Texts      the host's are borrowed until your function returns. Yours may go at the next call of a session; that of info stays for ever.
 *  Failure    any status but NNRP_OK, and what nnrp_fail wrote. No unwinding and no longjmp may leave your function.
 *  Threads    info may be called from any thread at any time. So may run, on one session too, unless the session is exclusive. Everything else of a
 *             session is called by one thread at a time; close last, after every other call on it has returned. stream is called as run is.
 *  Life       a library that was opened stays open until the process ends.
 */

/** A model that a plug-in has loaded. Opaque: the plug-in's own. Since: ABI 1.0 */
typedef struct NnrpSession NnrpSession;

/** What a plug-in says of a failure; the host gives it, zeroed, never NULL. nnrp_fail fills it.
 *
 *  reason        as errors.toml names it, "INVALID_MODEL", if it belongs to the status that the function returned. Empty, or of another status:
 *                LOAD_FAILED or RUN_FAILED.
 *  message       for people: where, expected, got. Longer ones are cut; file paths are taken out of it.
 *  details_json  for machines: a JSON object, or empty.
 *  Since: ABI 1.0
 */
typedef struct NnrpFault {
  size_t struct_size;
  char reason[64];
  char message[1024];
  char details_json[1024];
} NnrpFault;

/** One batch for a plug-in's session.
 *
 *  inputs       n_inputs tensors, as many as the signature has and in its order; NULL for an optional one that is absent. CPU memory, C-contiguous,
 *               aligned to its datatype; `datatype`, `ndim` and `shape` always say what is meant. Borrowed until return: read only, its deleter is NULL.
 *  outputs      n_outputs places in the signature's outputs, each at most once.
 *  results      n_outputs tensors to fill, in the order of `outputs`.  // out
 *               tensor    CPU memory, one lane, aligned to its datatype. The host ends it by its own deleter, from any thread, at any time, also when
 *                         you fail after you have set it. Without a deleter it is copied before the same thread calls again.
 *               datatype, ndim and shape are for BYTES alone (see NnrpTensor), and live as long as the tensor.
 *  stop         never NULL; not 0 once nobody waits for the answer: end soon, with any status. Read it as often as you like.
 *  deadline_ns  the instant of CLOCK_MONOTONIC at which `stop` is raised at the latest; 0: none, or no such clock.
 *  give         of stream alone, else NULL: takes what is in `results` as the next answer, and leaves them empty. Called with this struct, on the thread
 *               that called stream, before that returns; it waits while the reader is slow. Not NNRP_OK: nobody wants more, so end, with any status.
 *               Since: ABI 1.2
 *  id           the request's, or NULL. Since: ABI 1.2
 *  parameters_json  an object of the request's parameters that are the model's own, {"beam": 4}, without white space outside of texts; NULL where there are
 *               none. Since: ABI 1.2
 *  Since: ABI 1.0
 */
typedef struct NnrpRun {
  size_t struct_size;
  const NnrpTensor* const* inputs;
  size_t n_inputs;
  const size_t* outputs;
  size_t n_outputs;
  NnrpTensor* const* results;
  const volatile int32_t* stop;
  uint64_t deadline_ns;
  NnrpStatus (*give)(const struct NnrpRun* run);
  const char* id;
  const char* parameters_json;
} NnrpRun;

/** A runtime's functions. What comes up to `close` must be there; what follows may be NULL, and then the host answers that it is not offered.
 *
 *  abi_version   NNRP_ABI_VERSION, as you compiled with it. Another major version is refused.
 *  name          what models call it: at most 64 letters, digits, '.', '_', '-', not starting with '.'. Static.
 *  info          tells what it is, without loading anything:
 *                {"version": "1.2", "formats": ["sample"], "devices": ["cpu"], "options": {…}}
 *                The last is a JSON Schema (2020-12) of the options of a model; without it there are none. The host checks options against it.
 *  load          loads a model. Every field of `spec` is set, as it is in ABI 1.0; options_json is checked, without white space outside of texts.
 *                session  // out
 *  session_info  tells what was loaded, once, after load:
 *                {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], "outputs": […]} and, where they differ from these, "format": the
 *                first of the runtime's, "device": "cpu", "precision": "strict", "exclusive": false, "cancellable": false, "streams": false, "settings": {}.
 *                A tensor may have "symbols": [null, "n"], one for each dimension, and an input "optional": true; "shape": null is any rank.
 *                `device` and `precision` are those that hold: a model that asked for others is not loaded. A name is 1 to 256 bytes without
 *                control characters.
 *  run           runs one batch. A session that streams is never asked, but by a host older than ABI 1.2.
 *  close         ends a session.
 *
 *  cancel        for sessions that cannot look at `stop`: the run is to end. Called by another thread, at most once a run, while it goes on.
 *  stats         tells what the session uses now, an object of your own.
 *  set_option    changes an option of a loaded session; the value is JSON, checked like options_json.
 *  warm_up       runs once with values of its own choice.
 *  stream        of a session with "streams": true: answers one request with any number of answers, by `give`. `stop` is raised and `cancel` called, whatever
 *                the session says of "cancellable". Since: ABI 1.2
 *  Since: ABI 1.0
 */
typedef struct NnrpRuntimeV1 {
  size_t struct_size;
  uint32_t abi_version;
  const char* name;
  NnrpStatus (*info)(const char** json, NnrpFault* fault);
  NnrpStatus (*load)(const NnrpModelSpec* spec, NnrpSession** session, NnrpFault* fault);
  NnrpStatus (*session_info)(NnrpSession* session, const char** json, NnrpFault* fault);
  NnrpStatus (*run)(NnrpSession* session, const NnrpRun* run, NnrpFault* fault);
  void (*close)(NnrpSession* session);
  void (*cancel)(NnrpSession* session, const NnrpRun* run);
  NnrpStatus (*stats)(NnrpSession* session, const char** json, NnrpFault* fault);
  NnrpStatus (*set_option)(NnrpSession* session, const char* name, const char* value_json, NnrpFault* fault);
  NnrpStatus (*warm_up)(NnrpSession* session, NnrpFault* fault);
  NnrpStatus (*stream)(NnrpSession* session, const NnrpRun* run, NnrpFault* fault);
} NnrpRuntimeV1;

#if defined(_WIN32)
#define NNRP_EXPORT __declspec(dllexport)
#else
#define NNRP_EXPORT __attribute__((visibility("default")))
#endif

/** What a plug-in exports, and the host looks for: its functions, the same for ever. Since: ABI 1.0 */
NNRP_EXPORT const NnrpRuntimeV1* nnrp_runtime_v1(void);

/** Say what went wrong, in a plug-in: `return nnrp_fail(fault, NNRP_NOT_FOUND, "FILE_NOT_FOUND", "model file: no such file")`.
 *
 *  reason, message  NULL: none. What is too long is cut.
 *
 *  Part of this header, not of the library. Since: ABI 1.0
 */
static inline NnrpStatus nnrp_fail(NnrpFault* fault, NnrpStatus status, const char* reason, const char* message) {
  size_t end = 0;
  for (; reason != NULL && reason[end] != '\0' && end + 1 < sizeof fault->reason; end++) fault->reason[end] = reason[end];
  fault->reason[end] = '\0';
  for (end = 0; message != NULL && message[end] != '\0' && end + 1 < sizeof fault->message; end++) fault->message[end] = message[end];
  fault->message[end] = '\0';
  return status;
}

#ifdef __cplusplus
}
#endif

#endif /* NNRP_H_ */
