/* Runtimes in libraries of their own, through libnnrp: test_plugin MODELS, which holds the plug-ins in a folder. */
#include "check.h"

#include <pthread.h>

#define FOREVER_MS "600000"
#define LINE "{\"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [-1]}], \"outputs\": [{\"name\": \"y\", \"datatype\": \"FP32\", \"shape\": [-1]}]}"

static NnrpStatus load_with(NnrpEngine* engine, const char* runtime, const char* path, const char* options) {
  NnrpModelSpec spec = {.struct_size = sizeof spec, .name = "line", .path = path, .runtime = runtime, .options_json = options};
  return nnrp_load(engine, &spec, &error);
}

static NnrpStatus ask(NnrpEngine* engine, float x, uint64_t deadline_ns, NnrpCancel* cancel, NnrpResponse* response, NnrpError* told) {
  const int64_t shape[] = {1};
  DLManagedTensorVersioned memory = nnrp_borrow(&x, kDLFloat, 32, 1, shape);
  NnrpTensor input = {.struct_size = sizeof input, .name = "x", .tensor = &memory};
  const NnrpTensor* inputs[] = {&input};
  NnrpRequest request = {.struct_size = sizeof request, .model = "line", .inputs = inputs, .n_inputs = 1, .deadline_ns = deadline_ns, .cancel = cancel};
  return nnrp_infer(engine, &request, response, told);
}

static float answer(const NnrpResponse* response) { return *(const float*)response->outputs[0]->tensor->dl_tensor.data; }

static void test_a_plug_in_is_told_and_answers(NnrpEngine* engine) {
  char* json = NULL;
  NnrpResponse response = NNRP_RESPONSE_INIT;
  OK(nnrp_runtimes(engine, &json, &error));
  CHECK(strstr(json, "\"name\":\"sample\",\"version\":\"1.0\"") != NULL && strstr(json, "\"name\":\"v1_0\"") != NULL);
  nnrp_string_free(json);
  FAILS(load_with(engine, "sample", "/no/such/file", NULL), NNRP_NOT_FOUND, "FILE_NOT_FOUND");
  FAILS(load_with(engine, "sample", file("other", "something"), NULL), NNRP_INVALID_ARGUMENT, "INVALID_MODEL");
  FAILS(load_with(engine, "sample", file("line", "nnrp-sample"), "{\"factor\": 1}"), NNRP_INVALID_ARGUMENT, "UNKNOWN_OPTION");
  FAILS(load_with(engine, "sample", model_path, "{\"scale\": \"2\"}"), NNRP_INVALID_ARGUMENT, "INVALID_OPTION");
  static const char* runtimes[] = {"sample", "v1_0"};
  for (size_t i = 0; i < 2; i++) {
    OK(load_with(engine, runtimes[i], model_path, NULL));
    OK(ask(engine, 3, 0, NULL, &response, &error));
    CHECK(answer(&response) == 7);
    OK(nnrp_unload(engine, "line", NULL, &error));
  }
  nnrp_response_clear(&response);
}

static void test_a_device_and_a_precision_hold_or_are_refused(NnrpEngine* engine) {
  NnrpModelSpec spec = {.struct_size = sizeof spec, .name = "line", .path = model_path, .runtime = "sample", .device = "cuda:0"};
  FAILS(nnrp_load(engine, &spec, &error), NNRP_FAILED_PRECONDITION, "DEVICE_NOT_FOUND");
  spec.device = "cpu", spec.precision = "fp16";
  FAILS(nnrp_load(engine, &spec, &error), NNRP_UNIMPLEMENTED, "NOT_OFFERED");
  spec.precision = "sloppy";
  FAILS(nnrp_load(engine, &spec, &error), NNRP_INVALID_ARGUMENT, "INVALID_OPTION");
  spec.precision = "strict";
  OK(nnrp_load(engine, &spec, &error));
  OK(nnrp_unload(engine, "line", NULL, &error));
}

static void test_a_thousand_loads(NnrpEngine* engine) {
  NnrpResponse response = NNRP_RESPONSE_INIT;
  int good = 0;
  for (int i = 0; i < 1000; i++) {
    if (load_with(engine, "sample", model_path, "{\"scale\":0.5}") != NNRP_OK) break;
    good += ask(engine, (float)i, 0, NULL, &response, &error) == NNRP_OK && answer(&response) == 0.5f * (float)i + 1;
    if (nnrp_unload(engine, "line", NULL, &error) != NNRP_OK) break;
  }
  CHECK(good == 1000);
  nnrp_response_clear(&response);
}

typedef struct Thread {
  NnrpEngine* engine;
  NnrpCancel* cancel;
  NnrpStatus status;
} Thread;

static void* ask_often(void* argument) {
  Thread* thread = argument;
  NnrpError told = NNRP_ERROR_INIT;
  NnrpResponse response = NNRP_RESPONSE_INIT;
  for (int i = 0; i < 500 && thread->status == NNRP_OK; i++) {
    thread->status = ask(thread->engine, (float)i, 0, NULL, &response, &told);
    if (thread->status == NNRP_OK && answer(&response) != 2 * (float)i + 1) thread->status = NNRP_INTERNAL;
  }
  nnrp_response_clear(&response);
  nnrp_error_clear(&told);
  return NULL;
}

static void test_four_threads(NnrpEngine* engine) {
  Thread data[4];
  pthread_t threads[4];
  OK(load_with(engine, "sample", model_path, NULL));
  for (int i = 0; i < 4; i++) data[i] = (Thread){engine, NULL, NNRP_OK}, CHECK(pthread_create(&threads[i], NULL, ask_often, &data[i]) == 0);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL), CHECK(data[i].status == NNRP_OK);
  OK(nnrp_unload(engine, "line", NULL, &error));
}

static void* ask_once(void* argument) {
  Thread* thread = argument;
  NnrpResponse response = NNRP_RESPONSE_INIT;
  thread->status = ask(thread->engine, 1, 0, thread->cancel, &response, NULL);
  nnrp_response_clear(&response);
  return NULL;
}

static void test_long_runs_end_when_they_are_told_to(NnrpEngine* engine) {
  NnrpResponse response = NNRP_RESPONSE_INIT;
  Thread data = {engine, NULL, NNRP_OK};
  pthread_t thread;
  OK(load_with(engine, "sample", model_path, "{\"delay_ms\": " FOREVER_MS "}"));
  FAILS(ask(engine, 1, nnrp_now_ns() + 20000000, NULL, &response, &error), NNRP_DEADLINE_EXCEEDED, "DEADLINE");
  OK(nnrp_cancel_create(&data.cancel, &error));
  CHECK(pthread_create(&thread, NULL, ask_once, &data) == 0);
  nnrp_cancel_raise(data.cancel);
  pthread_join(thread, NULL);
  CHECK(data.status == NNRP_CANCELLED);
  nnrp_cancel_free(data.cancel);
  OK(nnrp_unload(engine, "line", NULL, &error));
  nnrp_response_clear(&response);
}

static void test_wrong_answers_are_errors(NnrpEngine* engine) {
  static const char* wrong[] = {"null_tensor",  "no_pointer", "null_data",    "other_dlpack", "foreign_device", "lanes",          "other_datatype", "rank_2",
                                "negative_dim", "huge_dim",   "null_shape",   "many_dims",    "negative_ndim",  "strides_outside", "byte_offset",   "misaligned",
                                "says_nothing", "status_77",  "unterminated", "our_defect",   "fails_at_last"};
  static const char* right[] = {"", "strides_back", "offset", "no_owner", "input_back", "input_memory"};
  char options[64];
  NnrpResponse response = NNRP_RESPONSE_INIT;
  file("bad", LINE);
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong + sizeof right / sizeof *right; i++) {
    const size_t n = sizeof wrong / sizeof *wrong;
    snprintf(options, sizeof options, "{\"do\": \"%s\"}", i < n ? wrong[i] : right[i - n]);
    OK(load_with(engine, "bad", model_path, options));
    if (i < n) FAILS(ask(engine, 1, 0, NULL, &response, &error), NNRP_RUNTIME_FAILURE, "RUN_FAILED"), CHECK(strncmp(error.message, "runtime bad: ", 13) == 0);
    else OK(ask(engine, 1, 0, NULL, &response, &error));
    OK(nnrp_unload(engine, "line", NULL, &error));
  }
  FAILS(load_with(engine, "bad", file("nonsense", "{\"inputs\": 5}"), NULL), NNRP_RUNTIME_FAILURE, "LOAD_FAILED");
  FAILS(load_with(engine, "bad", model_path, "{\"do\": \"load_fails\"}"), NNRP_INVALID_ARGUMENT, "INVALID_MODEL");
  nnrp_response_clear(&response);
}

/* The host program has no memory checker, so it cannot open what was compiled for one. */
#if !defined(__SANITIZE_ADDRESS__) && defined(__linux__)
static void test_a_crash_in_a_process_of_its_own_is_an_error(NnrpEngine* engine) {
  NnrpResponse response = NNRP_RESPONSE_INIT;
  NnrpModelSpec spec = {.struct_size = sizeof spec, .name = "line", .path = file("line", "nnrp-sample"), .runtime = "sample", .isolation = "process"};
  OK(nnrp_load(engine, &spec, &error));
  OK(ask(engine, 3, 0, NULL, &response, &error));
  CHECK(answer(&response) == 7);
  FAILS(ask(engine, 3, nnrp_now_ns(), NULL, &response, &error), NNRP_DEADLINE_EXCEEDED, "DEADLINE");
  OK(nnrp_unload(engine, "line", NULL, &error));
  spec.runtime = "bad", spec.path = file("bad", LINE), spec.options_json = "{\"do\": \"crashes\"}";
  OK(nnrp_load(engine, &spec, &error));
  FAILS(ask(engine, 3, 0, NULL, &response, &error), NNRP_UNAVAILABLE, "RUNTIME_CRASHED");
  CHECK(error.retryable == 1 && strstr(error.details_json, "\"exit\":\"SIGSEGV\"") != NULL);
  OK(nnrp_unload(engine, "line", NULL, &error));
  spec.isolation = "elsewhere";
  FAILS(nnrp_load(engine, &spec, &error), NNRP_INVALID_ARGUMENT, "INVALID_OPTION");
  spec.struct_size = offsetof(NnrpModelSpec, isolation); /* as ABI 1.0 had it: what follows is not read */
  spec.runtime = "sample", spec.path = file("line", "nnrp-sample"), spec.options_json = NULL;
  OK(nnrp_load(engine, &spec, &error));
  OK(ask(engine, 3, 0, NULL, &response, &error));
  OK(nnrp_unload(engine, "line", NULL, &error));
  nnrp_response_clear(&response);
}
#else
static void test_a_crash_in_a_process_of_its_own_is_an_error(NnrpEngine* engine) { (void)engine; }
#endif

static void test_a_taken_output_outlives_all(NnrpEngine* engine) {
  NnrpResponse response = NNRP_RESPONSE_INIT;
  OK(load_with(engine, "sample", file("line", "nnrp-sample"), NULL));
  OK(ask(engine, 20, 0, NULL, &response, &error));
  DLManagedTensorVersioned* taken = response.outputs[0]->tensor;
  response.outputs[0]->tensor = NULL;
  nnrp_response_clear(&response);
  nnrp_engine_free(engine);
  CHECK(*(const float*)taken->dl_tensor.data == 41);
  taken->deleter(taken);
}

int main(int argc, char** argv) {
  models = argc > 1 ? argv[1] : ".";
  NnrpEngine* engine = NULL;
  NnrpEngineOptions options = {.struct_size = sizeof options, .settings_json = "{\"runtimes\": {\"plugins\": [\"/no/such/libx.so\"]}}"};
  FAILS(nnrp_engine_create(&options, &engine, &error), NNRP_FAILED_PRECONDITION, "RUNTIME_NOT_INSTALLED");
  engine = engine_with_plugins();
  if (engine == NULL) return report();
  test_a_plug_in_is_told_and_answers(engine);
  test_a_device_and_a_precision_hold_or_are_refused(engine);
  test_a_thousand_loads(engine);
  test_four_threads(engine);
  test_long_runs_end_when_they_are_told_to(engine);
  test_wrong_answers_are_errors(engine);
  test_a_crash_in_a_process_of_its_own_is_an_error(engine);
  test_a_taken_output_outlives_all(engine);
  return report();
}
