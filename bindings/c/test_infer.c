/* nnrp_infer with good and with bad tensors, deadlines, cancellation and threads: test_infer MODELS. */
#include "check.h"

#include <pthread.h>
#include <sched.h>

enum { THREADS = 4, TURNS = 50 };

/* Number of its DLPack code and bits, by NnrpDatatype; BYTES lie as UINT8. */
static const struct {
  const char* name;
  uint8_t code, bits;
} DATATYPES[] = {{NULL, 0, 0},        {"BOOL", kDLBool, 8},    {"UINT8", kDLUInt, 8},    {"UINT16", kDLUInt, 16},
                 {"UINT32", kDLUInt, 32}, {"UINT64", kDLUInt, 64}, {"INT8", kDLInt, 8},      {"INT16", kDLInt, 16},
                 {"INT32", kDLInt, 32}, {"INT64", kDLInt, 64},   {"FP16", kDLFloat, 16},   {"FP32", kDLFloat, 32},
                 {"FP64", kDLFloat, 64}, {"BF16", kDLBfloat, 16}, {"BYTES", kDLUInt, 8},    {"FP8_E4M3", kDLFloat8_e4m3fn, 8},
                 {"FP8_E5M2", kDLFloat8_e5m2, 8}, {"INT4", kDLInt, 4}, {"UINT4", kDLUInt, 4}};

static NnrpTensor named(const char* name, DLManagedTensorVersioned* tensor) {
  return (NnrpTensor){.struct_size = sizeof(NnrpTensor), .name = name, .tensor = tensor};
}

/* One input, all outputs. */
static NnrpStatus ask(NnrpEngine* engine, const char* model, const NnrpTensor* input, NnrpResponse* response) {
  NnrpRequest request = {.struct_size = sizeof request, .model = model, .inputs = &input, .n_inputs = 1};
  return nnrp_infer(engine, &request, response, &error);
}

static int floats_are(const NnrpResponse* response, size_t output, const float* expected, int64_t count) {
  const NnrpTensor* tensor = response->outputs[output];
  const DLTensor* dl = &tensor->tensor->dl_tensor;
  return tensor->datatype == NNRP_FP32 && dl->ndim == 1 && dl->shape[0] == count && dl->strides[0] == 1 && tensor->ndim == 1 &&
         tensor->shape[0] == count && memcmp(dl->data, expected, (size_t)count * sizeof *expected) == 0;
}

static void test_an_answer(NnrpEngine* engine) {
  static const float x[] = {1, 2, -3}, expected[] = {3, 5, -5};
  static const int64_t shape[] = {3};
  DLManagedTensorVersioned memory = nnrp_borrow(x, kDLFloat, 32, 1, shape);
  NnrpTensor input = named("x", &memory);
  const NnrpTensor* inputs[] = {&input};
  const char* outputs[] = {"y"};
  NnrpRequest request = {.struct_size = sizeof request, .model = "double", .id = "a-1", .inputs = inputs, .n_inputs = 1};
  NnrpResponse response = NNRP_RESPONSE_INIT;
  OK(nnrp_infer(engine, &request, &response, &error));
  CHECK(response.n_outputs == 1 && strcmp(response.outputs[0]->name, "y") == 0 && floats_are(&response, 0, expected, 3));
  CHECK(strcmp(response.model, "double") == 0 && strcmp(response.version, "1") == 0 && strcmp(response.id, "a-1") == 0);
  const DLManagedTensorVersioned* y = response.outputs[0]->tensor;
  CHECK(y->version.major == 1 && y->flags == DLPACK_FLAG_BITMASK_READ_ONLY && y->dl_tensor.device.device_type == kDLCPU && y->dl_tensor.byte_offset == 0);
  request.id = NULL, request.version = "1", request.output_names = outputs, request.n_outputs = 1;
  request.parameters_json = "{\"a\": true, \"b\": 1, \"c\": 18446744073709551615, \"d\": 0.5, \"e\": \"text\"}";
  OK(nnrp_infer(engine, &request, &response, &error));
  CHECK(response.id == NULL && floats_are(&response, 0, expected, 3));
  request.model = "nothing";
  FAILS(nnrp_infer(engine, &request, &response, &error), NNRP_NOT_FOUND, "MODEL_NOT_FOUND");
  CHECK(response.owner == NULL && response.n_outputs == 0 && response.model == NULL);
  CHECK(nnrp_infer(engine, &request, &response, NULL) == NNRP_NOT_FOUND);
}

static void test_an_answer_may_be_the_next_question(NnrpEngine* engine) {
  static const float x[] = {1}, expected[] = {15};
  static const int64_t shape[] = {1};
  DLManagedTensorVersioned memory = nnrp_borrow(x, kDLFloat, 32, 1, shape);
  NnrpTensor input = named("x", &memory);
  NnrpResponse response = NNRP_RESPONSE_INIT;
  for (int turn = 0; turn < 3; turn++) {
    OK(ask(engine, "double", &input, &response));
    input.tensor = response.outputs[0]->tensor;
  }
  CHECK(floats_are(&response, 0, expected, 1));
  nnrp_response_clear(&response);
}

static void test_outputs_come_in_the_order_asked_for(NnrpEngine* engine) {
  static const float x[] = {-2}, minus[] = {2}, size[] = {2};
  static const int64_t shape[] = {1};
  DLManagedTensorVersioned memory = nnrp_borrow(x, kDLFloat, 32, 1, shape);
  NnrpTensor input = named("x", &memory);
  const NnrpTensor* inputs[] = {&input};
  const char* outputs[] = {"size", "minus"};
  NnrpRequest request = {.struct_size = sizeof request, .model = "two_outputs", .inputs = inputs, .n_inputs = 1, .output_names = outputs, .n_outputs = 2};
  NnrpResponse response = NNRP_RESPONSE_INIT;
  OK(nnrp_infer(engine, &request, &response, &error));
  CHECK(strcmp(response.outputs[0]->name, "size") == 0 && floats_are(&response, 0, size, 1));
  CHECK(strcmp(response.outputs[1]->name, "minus") == 0 && floats_are(&response, 1, minus, 1));
  nnrp_response_clear(&response);
  outputs[1] = "size";
  FAILS(nnrp_infer(engine, &request, &response, &error), NNRP_INVALID_ARGUMENT, "DUPLICATE_OUTPUT");
  outputs[1] = "nothing";
  FAILS(nnrp_infer(engine, &request, &response, &error), NNRP_INVALID_ARGUMENT, "UNKNOWN_OUTPUT");
  outputs[1] = NULL;
  FAILS(nnrp_infer(engine, &request, &response, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  request.output_names = NULL;
  FAILS(nnrp_infer(engine, &request, &response, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
}

static void test_a_taken_output_outlives_response_and_engine(NnrpEngine* engine) {
  static const float x[] = {1};
  static const int64_t shape[] = {1};
  DLManagedTensorVersioned memory = nnrp_borrow(x, kDLFloat, 32, 1, shape);
  NnrpTensor input = named("x", &memory);
  NnrpResponse response = NNRP_RESPONSE_INIT;
  OK(ask(engine, "double", &input, &response));
  DLManagedTensorVersioned* taken = response.outputs[0]->tensor;
  response.outputs[0]->tensor = NULL;
  nnrp_response_clear(&response);
  nnrp_engine_free(engine);
  CHECK(*(const float*)taken->dl_tensor.data == 3);
  taken->deleter(taken);
}

static void test_every_datatype_comes_back_as_it_went(NnrpEngine* engine) {
  /* Bytes that are values of every type; four four-bit elements are the first two of them. */
  static const uint8_t bits[32] = {1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1};
  static const uint8_t texts[] = {1, 0, 0, 0, 'a', 0, 0, 0, 0, 3, 0, 0, 0, 0xff, 0, 'y', 0, 0, 0, 0};
  static const int64_t four[] = {4}, n_texts[] = {sizeof texts};
  for (NnrpDatatype datatype = NNRP_BOOL; datatype <= NNRP_UINT4; datatype++) {
    char model[32];
    snprintf(model, sizeof model, "identity_%s", DATATYPES[datatype].name);
    uint8_t code = DATATYPES[datatype].code, width = DATATYPES[datatype].bits;
    int is_bytes = datatype == NNRP_BYTES;
    const uint8_t* data = is_bytes ? texts : bits;
    size_t byte_size = is_bytes ? sizeof texts : (4u * width + 7) / 8;
    DLManagedTensorVersioned memory = nnrp_borrow(data, code, width, 1, is_bytes ? n_texts : four);
    NnrpTensor input = {.struct_size = sizeof input, .name = "x", .tensor = &memory, .datatype = datatype, .ndim = 1, .shape = four};
    NnrpResponse response = NNRP_RESPONSE_INIT, again = NNRP_RESPONSE_INIT;
    if (!OK(load(engine, model, NULL, model, NULL)) || !OK(ask(engine, model, &input, &response))) continue;
    const NnrpTensor* y = response.outputs[0];
    const DLTensor* dl = &y->tensor->dl_tensor;
    CHECK(y->datatype == datatype && y->ndim == 1 && y->shape[0] == 4 && dl->dtype.code == code && dl->dtype.bits == width && dl->dtype.lanes == 1);
    CHECK(dl->ndim == 1 && dl->shape[0] == (is_bytes ? n_texts[0] : 4) && memcmp(dl->data, data, byte_size) == 0);
    NnrpTensor back = *y;
    back.name = "x";
    OK(ask(engine, model, &back, &again));
    CHECK(memcmp(again.outputs[0]->tensor->dl_tensor.data, data, byte_size) == 0);
    nnrp_response_clear(&again);
    nnrp_response_clear(&response);
  }
}

static void test_elements_may_lie_anywhere(NnrpEngine* engine) {
  static const float x[] = {1, 2, 3, 4, 5, 6};
  static int64_t shape[] = {2, 3, 1}, across[] = {1, 2, 77}, back[] = {-3, -1, 0}, same[] = {0, 0, 0}, rows[] = {1, 1, 1};
  static const float transposed[] = {1, 3, 5, 2, 4, 6}, reversed[] = {6, 5, 4, 3, 2, 1}, broadcast[] = {1, 1, 1, 1, 1, 1}, windows[] = {1, 2, 3, 2, 3, 4};
  const struct {
    int64_t* strides;
    uint64_t byte_offset;
    const float* expected;
  } cases[] = {{NULL, 0, x}, {across, 0, transposed}, {back, 5 * sizeof *x, reversed}, {same, 0, broadcast}, {rows, 0, windows}};
  NnrpResponse response = NNRP_RESPONSE_INIT;
  DLManagedTensorVersioned memory = nnrp_borrow(x, kDLFloat, 32, 3, shape);
  NnrpTensor input = named("x", &memory);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    memory.dl_tensor.strides = cases[i].strides;
    memory.dl_tensor.byte_offset = cases[i].byte_offset;
    OK(ask(engine, "any_rank", &input, &response));
    CHECK(memcmp(response.outputs[0]->tensor->dl_tensor.data, cases[i].expected, sizeof x) == 0);
  }
  char odd[1 + sizeof x];
  memcpy(odd + 1, x, sizeof x);
  memory = nnrp_borrow(odd, kDLFloat, 32, 3, shape);
  memory.dl_tensor.byte_offset = 1;
  OK(ask(engine, "any_rank", &input, &response));
  CHECK(memcmp(response.outputs[0]->tensor->dl_tensor.data, x, sizeof x) == 0);
  memory = nnrp_borrow(x, kDLFloat, 32, 0, NULL);
  OK(ask(engine, "scalar", &input, &response));
  CHECK(response.outputs[0]->ndim == 0 && *(const float*)response.outputs[0]->tensor->dl_tensor.data == 1);
  static const int64_t none[] = {0, 5};
  memory = nnrp_borrow(NULL, kDLFloat, 32, 2, none);
  OK(ask(engine, "any_rank", &input, &response));
  CHECK(response.outputs[0]->ndim == 2 && response.outputs[0]->shape[0] == 0 && response.outputs[0]->shape[1] == 5);
  nnrp_response_clear(&response);
}

/* Each begins with what test_an_answer sends, and spoils one thing. */
#define REFUSED(spoil, code, reason)                                              \
  do {                                                                            \
    int64_t shape[65] = {3}, strides[65] = {1};                                   \
    DLManagedTensorVersioned memory = nnrp_borrow(x, kDLFloat, 32, 1, shape);     \
    NnrpTensor input = named("x", &memory);                                       \
    DLTensor* dl = &memory.dl_tensor;                                             \
    dl->strides = strides;                                                        \
    spoil;                                                                        \
    FAILS(ask(engine, "double", &input, &response), code, reason);                \
  } while (0)

static void test_bad_tensors_are_refused(NnrpEngine* engine) {
  static const float x[] = {1, 2, -3};
  NnrpResponse response = NNRP_RESPONSE_INIT;
  REFUSED(input.struct_size = 8, NNRP_INVALID_ARGUMENT, "MALFORMED");
  REFUSED(input.name = NULL, NNRP_INVALID_ARGUMENT, "MALFORMED");
  REFUSED(input.name = "\xc3(", NNRP_INVALID_ARGUMENT, "MALFORMED");
  REFUSED(input.name = "z", NNRP_INVALID_ARGUMENT, "UNKNOWN_INPUT");
  REFUSED(input.tensor = NULL, NNRP_INVALID_ARGUMENT, "MALFORMED");
  REFUSED(input.tensor = (DLManagedTensorVersioned*)(void*)((char*)&memory + 1), NNRP_INVALID_ARGUMENT, "MALFORMED");
  REFUSED(memory.version.major = 2, NNRP_INVALID_ARGUMENT, "MALFORMED");
  REFUSED(memory.version.major = 0, NNRP_INVALID_ARGUMENT, "MALFORMED");
  REFUSED(dl->device.device_type = kDLCUDA, NNRP_UNIMPLEMENTED, "NOT_OFFERED");
  REFUSED(memset(&dl->device.device_type, 0xff, sizeof dl->device.device_type), NNRP_UNIMPLEMENTED, "NOT_OFFERED");
  REFUSED(dl->dtype.lanes = 4, NNRP_INVALID_ARGUMENT, "UNKNOWN_DATATYPE");
  REFUSED(dl->dtype.lanes = 0, NNRP_INVALID_ARGUMENT, "UNKNOWN_DATATYPE");
  REFUSED(dl->dtype.bits = 24, NNRP_INVALID_ARGUMENT, "UNKNOWN_DATATYPE");
  REFUSED(dl->dtype.code = kDLComplex, NNRP_INVALID_ARGUMENT, "UNKNOWN_DATATYPE");
  REFUSED(dl->dtype.code = kDLInt, NNRP_INVALID_ARGUMENT, "DATATYPE_MISMATCH");
  REFUSED((dl->dtype.code = kDLInt, dl->dtype.bits = 4, memory.flags = DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED), NNRP_UNIMPLEMENTED, "NOT_OFFERED");
  REFUSED((dl->dtype.code = kDLInt, dl->dtype.bits = 4, strides[0] = 2), NNRP_UNIMPLEMENTED, "NOT_OFFERED");
  REFUSED(input.datatype = NNRP_FP64, NNRP_INVALID_ARGUMENT, "DATATYPE_MISMATCH");
  REFUSED(input.datatype = NNRP_BYTES, NNRP_INVALID_ARGUMENT, "DATATYPE_MISMATCH");
  REFUSED(input.datatype = 19, NNRP_INVALID_ARGUMENT, "UNKNOWN_DATATYPE");
  REFUSED(input.datatype = -1, NNRP_INVALID_ARGUMENT, "UNKNOWN_DATATYPE");
  REFUSED((input.ndim = 1, input.shape = (const int64_t[]){4}), NNRP_INVALID_ARGUMENT, "SHAPE_MISMATCH");
  REFUSED(dl->data = NULL, NNRP_INVALID_ARGUMENT, "MALFORMED");
  REFUSED(dl->byte_offset = UINT64_MAX, NNRP_INVALID_ARGUMENT, "INVALID_SHAPE");
}

static void test_bad_shapes_are_refused(NnrpEngine* engine) {
  static const float x[] = {1, 2, -3};
  NnrpResponse response = NNRP_RESPONSE_INIT;
  REFUSED(dl->ndim = -1, NNRP_INVALID_ARGUMENT, "INVALID_SHAPE");
  REFUSED(dl->ndim = 65, NNRP_INVALID_ARGUMENT, "INVALID_SHAPE");
  REFUSED(dl->ndim = INT32_MAX, NNRP_INVALID_ARGUMENT, "INVALID_SHAPE");
  REFUSED(dl->ndim = 0, NNRP_INVALID_ARGUMENT, "SHAPE_MISMATCH");
  REFUSED((dl->ndim = 2, shape[1] = 1, strides[0] = strides[1] = 1), NNRP_INVALID_ARGUMENT, "SHAPE_MISMATCH");
  REFUSED(dl->shape = NULL, NNRP_INVALID_ARGUMENT, "MALFORMED");
  REFUSED(dl->shape = (int64_t*)(void*)((char*)shape + 1), NNRP_INVALID_ARGUMENT, "MALFORMED");
  REFUSED(shape[0] = -3, NNRP_INVALID_ARGUMENT, "INVALID_SHAPE");
  REFUSED(shape[0] = INT64_MIN, NNRP_INVALID_ARGUMENT, "INVALID_SHAPE");
  REFUSED(shape[0] = INT64_MAX, NNRP_INVALID_ARGUMENT, "INVALID_SHAPE");
  REFUSED((dl->ndim = 2, shape[0] = shape[1] = (int64_t)1 << 40), NNRP_INVALID_ARGUMENT, "INVALID_SHAPE");
  REFUSED((shape[0] = (int64_t)1 << 40, strides[0] = 0), NNRP_INVALID_ARGUMENT, "INVALID_SHAPE");
  REFUSED(strides[0] = INT64_MAX, NNRP_INVALID_ARGUMENT, "INVALID_SHAPE");
  REFUSED(strides[0] = INT64_MIN, NNRP_INVALID_ARGUMENT, "INVALID_SHAPE");
  REFUSED((input.ndim = -1, input.shape = shape), NNRP_INVALID_ARGUMENT, "INVALID_SHAPE");
}

static void test_bad_texts_are_refused(NnrpEngine* engine) {
  static const uint8_t texts[] = {1, 0, 0, 0, 'a', 2, 0, 0, 0, 'b'};
  static const int64_t two[] = {2}, one[] = {1};
  int64_t length[] = {sizeof texts};
  NnrpResponse response = NNRP_RESPONSE_INIT;
  DLManagedTensorVersioned memory = nnrp_borrow(texts, kDLUInt, 8, 1, length);
  NnrpTensor input = {.struct_size = sizeof input, .name = "x", .tensor = &memory, .datatype = NNRP_BYTES, .ndim = 1, .shape = two};
  FAILS(ask(engine, "identity_BYTES", &input, &response), NNRP_INVALID_ARGUMENT, "BYTE_SIZE_MISMATCH");
  length[0] = 5;
  FAILS(ask(engine, "identity_BYTES", &input, &response), NNRP_INVALID_ARGUMENT, "BYTE_SIZE_MISMATCH");
  input.shape = one;
  OK(ask(engine, "identity_BYTES", &input, &response));
  input.shape = NULL;
  FAILS(ask(engine, "identity_BYTES", &input, &response), NNRP_INVALID_ARGUMENT, "MALFORMED");
  input.datatype = NNRP_DATATYPE_UNSET;
  FAILS(ask(engine, "identity_BYTES", &input, &response), NNRP_INVALID_ARGUMENT, "MALFORMED");
  input.ndim = 0;
  FAILS(ask(engine, "identity_BYTES", &input, &response), NNRP_INVALID_ARGUMENT, "DATATYPE_MISMATCH");
  nnrp_response_clear(&response);
}

static void test_bad_requests_are_refused(NnrpEngine* engine) {
  static const float x[] = {1};
  static const int64_t shape[] = {1};
  DLManagedTensorVersioned memory = nnrp_borrow(x, kDLFloat, 32, 1, shape);
  NnrpTensor input = named("x", &memory);
  const NnrpTensor* inputs[] = {&input, &input};
  const NnrpRequest good = {.struct_size = sizeof good, .model = "double", .inputs = inputs, .n_inputs = 1};
  NnrpResponse response = NNRP_RESPONSE_INIT, wrong = {.struct_size = 8};
  OK(nnrp_infer(engine, &good, &response, &error));
  FAILS(nnrp_infer(NULL, &good, &response, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  CHECK(response.owner == NULL && response.n_outputs == 0);
  FAILS(nnrp_infer(engine, NULL, &response, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_infer(engine, &good, NULL, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_infer(engine, &good, &wrong, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  nnrp_response_clear(&wrong);
#define SPOILT(spoil, code, reason)                                 \
  do {                                                              \
    NnrpRequest request = good;                                     \
    spoil;                                                          \
    OK(nnrp_infer(engine, &good, &response, &error));               \
    FAILS(nnrp_infer(engine, &request, &response, &error), code, reason); \
    CHECK(response.owner == NULL && response.n_outputs == 0);       \
  } while (0)
  SPOILT(request.struct_size--, NNRP_INVALID_ARGUMENT, "MALFORMED");
  SPOILT(request.model = NULL, NNRP_INVALID_ARGUMENT, "MALFORMED");
  SPOILT(request.version = "7", NNRP_NOT_FOUND, "VERSION_NOT_FOUND");
  SPOILT(request.id = "\xff", NNRP_INVALID_ARGUMENT, "MALFORMED");
  SPOILT(request.parameters_json = "{", NNRP_INVALID_ARGUMENT, "MALFORMED");
  SPOILT(request.parameters_json = "[]", NNRP_INVALID_ARGUMENT, "MALFORMED");
  SPOILT(request.parameters_json = "{\"a\": null}", NNRP_INVALID_ARGUMENT, "INVALID_PARAMETER");
  SPOILT(request.inputs = NULL, NNRP_INVALID_ARGUMENT, "MALFORMED");
  SPOILT(request.inputs = (const NnrpTensor* const[]){NULL}, NNRP_INVALID_ARGUMENT, "MALFORMED");
  SPOILT(request.n_inputs = 0, NNRP_INVALID_ARGUMENT, "MISSING_INPUT");
  SPOILT(request.n_inputs = 2, NNRP_INVALID_ARGUMENT, "DUPLICATE_INPUT");
  SPOILT(request.n_inputs = SIZE_MAX, NNRP_INVALID_ARGUMENT, "MALFORMED");
  SPOILT(request.deadline_ns = 1, NNRP_DEADLINE_EXCEEDED, "DEADLINE");
}

/* A run that ends only when it is stopped. */
static NnrpStatus run_long(NnrpEngine* engine, uint64_t deadline_ns, NnrpCancel* cancel, NnrpResponse* response, NnrpError* told) {
  static const int64_t turns = INT64_MAX, square[] = {2, 2};
  static const float x[] = {1, 0, 0, 1};
  DLManagedTensorVersioned n = nnrp_borrow(&turns, kDLInt, 64, 0, NULL), m = nnrp_borrow(x, kDLFloat, 32, 2, square);
  NnrpTensor named_n = named("n", &n), named_m = named("x", &m);
  const NnrpTensor* inputs[] = {&named_m, &named_n};
  NnrpRequest request = {.struct_size = sizeof request, .model = "loop", .inputs = inputs, .n_inputs = 2, .deadline_ns = deadline_ns, .cancel = cancel};
  return nnrp_infer(engine, &request, response, told);
}

typedef struct Run {
  NnrpEngine* engine;
  NnrpCancel* cancel;
  NnrpStatus status;
} Run;

static void* run_until_cancelled(void* argument) {
  Run* run = argument;
  NnrpResponse response = NNRP_RESPONSE_INIT;
  NnrpError told = NNRP_ERROR_INIT;
  /* The other thread's look at the handle may come in between; it lets go of the handle before it yields. */
  do run->status = run_long(run->engine, 0, run->cancel, &response, &told);
  while (run->status == NNRP_INVALID_ARGUMENT);
  nnrp_error_clear(&told);
  return NULL;
}

static void test_deadlines_and_cancellation(NnrpEngine* engine) {
  NnrpResponse response = NNRP_RESPONSE_INIT;
  FAILS(run_long(engine, nnrp_now_ns() + 20 * 1000 * 1000, NULL, &response, &error), NNRP_DEADLINE_EXCEEDED, "DEADLINE");
  NnrpCancel* cancel = NULL;
  FAILS(nnrp_cancel_create(NULL, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  OK(nnrp_cancel_create(&cancel, &error));
  Run run = {engine, cancel, NNRP_OK};
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, run_until_cancelled, &run) == 0);
  /* A request for no model is MODEL_NOT_FOUND while the handle is free, and refused once the long run carries it. */
  NnrpRequest look = {.struct_size = sizeof look, .model = "nothing", .cancel = cancel};
  while (nnrp_infer(engine, &look, &response, &error) != NNRP_INVALID_ARGUMENT) sched_yield();
  CHECK(strcmp(error.reason, "MALFORMED") == 0);
  nnrp_cancel_raise(cancel);
  nnrp_cancel_raise(cancel);
  pthread_join(thread, NULL);
  CHECK(run.status == NNRP_CANCELLED);
  FAILS(run_long(engine, 0, cancel, &response, &error), NNRP_CANCELLED, "CLIENT_CANCELLED");
  nnrp_cancel_free(cancel);
}

static void* ask_often(void* argument) {
  Run* run = argument;
  NnrpError told = NNRP_ERROR_INIT;
  NnrpResponse response = NNRP_RESPONSE_INIT;
  for (int turn = 0; turn < TURNS; turn++) {
    const int64_t shape[] = {1};
    float x = (float)turn;
    DLManagedTensorVersioned memory = nnrp_borrow(&x, kDLFloat, 32, 1, shape);
    NnrpTensor input = named("x", &memory);
    const NnrpTensor* inputs[] = {&input};
    NnrpRequest request = {.struct_size = sizeof request, .model = "double", .inputs = inputs, .n_inputs = 1, .deadline_ns = nnrp_now_ns() + 60000000000};
    run->status = nnrp_infer(run->engine, &request, &response, &told);
    if (run->status != NNRP_OK) break;
    if (*(const float*)response.outputs[0]->tensor->dl_tensor.data != 2 * x + 1) run->status = NNRP_INTERNAL;
  }
  nnrp_response_clear(&response);
  nnrp_error_clear(&told);
  return NULL;
}

static void test_threads_share_an_engine(NnrpEngine* engine) {
  Run runs[THREADS];
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) {
    runs[i] = (Run){engine, NULL, NNRP_INTERNAL};
    CHECK(pthread_create(&threads[i], NULL, ask_often, &runs[i]) == 0);
  }
  for (int i = 0; i < 3; i++) OK(load(engine, "other", "1", "double", NULL)), OK(nnrp_unload(engine, "other", NULL, &error));
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL), CHECK(runs[i].status == NNRP_OK);
}

int main(int argc, char** argv) {
  models = argc > 1 ? argv[1] : ".";
  static const char* loaded[] = {"double", "two_outputs", "any_rank", "scalar", "loop"};
  NnrpEngine* engine = NULL;
  if (!OK(nnrp_engine_create(NULL, &engine, &error))) return report();
  for (size_t i = 0; i < sizeof loaded / sizeof *loaded; i++) {
    if (!OK(load(engine, loaded[i], NULL, loaded[i], NULL))) return report();
  }
  test_an_answer(engine);
  test_an_answer_may_be_the_next_question(engine);
  test_outputs_come_in_the_order_asked_for(engine);
  test_every_datatype_comes_back_as_it_went(engine);
  test_elements_may_lie_anywhere(engine);
  test_bad_tensors_are_refused(engine);
  test_bad_shapes_are_refused(engine);
  test_bad_texts_are_refused(engine);
  test_bad_requests_are_refused(engine);
  test_deadlines_and_cancellation(engine);
  test_threads_share_an_engine(engine);
  test_a_taken_output_outlives_response_and_engine(engine);
  return report();
}
