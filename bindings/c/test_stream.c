/* Streams of answers from plug-ins, read through libnnrp: test_stream MODELS, which holds the plug-ins in a folder. */
#include "check.h"

#include <pthread.h>
#include <unistd.h>

#define FOREVER_MS "600000"
#define LINE "{\"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [-1]}], \"outputs\": [{\"name\": \"y\", \"datatype\": \"FP32\", \"shape\": [-1]}], \"streams\": true}"

static NnrpStatus load_with(NnrpEngine* engine, const char* runtime, const char* options) {
  NnrpModelSpec spec = {.struct_size = sizeof spec, .name = "line", .path = model_path, .runtime = runtime, .options_json = options};
  return nnrp_load(engine, &spec, &error);
}

/* Begin to answer x, which may go at once. */
static NnrpStatus begin(NnrpEngine* engine, const float* x, int64_t count, uint64_t deadline_ns, NnrpCancel* cancel, NnrpStream** stream, NnrpError* told) {
  DLManagedTensorVersioned memory = nnrp_borrow(x, kDLFloat, 32, 1, &count);
  NnrpTensor input = {.struct_size = sizeof input, .name = "x", .tensor = &memory};
  const NnrpTensor* inputs[] = {&input};
  NnrpRequest request = {.struct_size = sizeof request, .model = "line", .id = "a-1", .parameters_json = "{\"beam\": 4}", .inputs = inputs, .n_inputs = 1};
  request.deadline_ns = deadline_ns, request.cancel = cancel;
  return nnrp_stream_open(engine, &request, stream, told);
}

static float only(const NnrpResponse* response) {
  const DLTensor* y = &response->outputs[0]->tensor->dl_tensor;
  return response->n_outputs == 1 && y->shape[0] == 1 ? *(const float*)y->data : -1;
}

static void test_answers_come_in_order_and_end(NnrpEngine* engine) {
  float x[] = {1, 2, 3};
  char* json = NULL;
  NnrpStream* stream = NULL;
  NnrpNext next = NNRP_NEXT_WAIT;
  NnrpResponse response = NNRP_RESPONSE_INIT;
  OK(nnrp_models(engine, &json, &error));
  CHECK(strstr(json, "\"streams\":true") != NULL);
  nnrp_string_free(json);
  OK(begin(engine, x, 3, 0, NULL, &stream, &error));
  memset(x, 0, sizeof x); /* it has a copy */
  for (int i = 1; i <= 3; i++) {
    OK(nnrp_stream_next(stream, 0, &next, &response, &error));
    CHECK(next == NNRP_NEXT_ANSWER && only(&response) == 2 * (float)i + 1);
    CHECK(strcmp(response.id, "a-1") == 0 && strcmp(response.model, "line") == 0 && strcmp(response.outputs[0]->name, "y") == 0);
  }
  for (int i = 0; i < 2; i++) {
    OK(nnrp_stream_next(stream, nnrp_now_ns() + 60000000000, &next, &response, &error));
    CHECK(next == NNRP_NEXT_END && response.owner == NULL && response.n_outputs == 0);
  }
  nnrp_stream_close(stream);
  OK(begin(engine, x, 0, 0, NULL, &stream, &error));
  OK(nnrp_stream_next(stream, 0, &next, &response, &error));
  CHECK(next == NNRP_NEXT_END);
  nnrp_stream_close(stream);
}

/* Of a model that takes a millisecond for each answer. */
static void test_one_that_is_left_is_cancelled_and_an_answer_outlives_it(NnrpEngine* engine) {
  static float x[300000];
  NnrpStream* stream = NULL;
  NnrpNext next = NNRP_NEXT_END;
  NnrpResponse response = NNRP_RESPONSE_INIT;
  DLManagedTensorVersioned* taken = NULL;
  /* Each that went on would keep one of the model's workers, of which there is one for each processor, for five minutes. */
  const long turns = sysconf(_SC_NPROCESSORS_ONLN) + 8;
  for (long turn = 0; turn < turns; turn++) {
    OK(begin(engine, x, turn == turns - 1 ? 3 : 300000, 0, NULL, &stream, &error));
    OK(nnrp_stream_next(stream, nnrp_now_ns() + 60000000000, &next, &response, &error));
    CHECK(next == NNRP_NEXT_ANSWER);
    if (next == NNRP_NEXT_ANSWER && taken == NULL) taken = response.outputs[0]->tensor, response.outputs[0]->tensor = NULL;
    nnrp_stream_close(stream);
    if (next != NNRP_NEXT_ANSWER) break;
  }
  nnrp_response_clear(&response);
  CHECK(taken != NULL && *(const float*)taken->dl_tensor.data == 1);
  taken->deleter(taken);
}

static void test_what_does_not_fit_is_refused(NnrpEngine* engine) {
  static const float x[] = {1};
  NnrpNext next = NNRP_NEXT_ANSWER;
  NnrpStream* stream = NULL;
  NnrpResponse response = NNRP_RESPONSE_INIT, wrong = {.struct_size = 8};
  NnrpRequest request = {.struct_size = sizeof request, .model = "line"};
  FAILS(nnrp_infer(engine, &request, &response, &error), NNRP_UNIMPLEMENTED, "NOT_OFFERED");
  CHECK(strstr(error.details_json, "\"decoupled\":true") != NULL);
  FAILS(nnrp_stream_open(engine, &request, &stream, &error), NNRP_INVALID_ARGUMENT, "MISSING_INPUT");
  CHECK(stream == NULL);
  request.model = "nothing";
  FAILS(nnrp_stream_open(engine, &request, &stream, &error), NNRP_NOT_FOUND, "MODEL_NOT_FOUND");
  FAILS(nnrp_stream_open(NULL, &request, &stream, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_stream_open(engine, NULL, &stream, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(begin(engine, x, 1, 0, NULL, NULL, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(begin(engine, x, 1, 1, NULL, &stream, &error), NNRP_DEADLINE_EXCEEDED, "DEADLINE");
  FAILS(nnrp_stream_next(NULL, 0, &next, &response, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  CHECK(next == NNRP_NEXT_END);
  OK(begin(engine, x, 1, 0, NULL, &stream, &error));
  FAILS(nnrp_stream_next(stream, 0, NULL, &response, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_stream_next(stream, 0, &next, NULL, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_stream_next(stream, 0, &next, &wrong, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  CHECK(nnrp_stream_next(stream, 0, &next, &response, NULL) == NNRP_OK && next == NNRP_NEXT_ANSWER && only(&response) == 3);
  nnrp_stream_close(stream);
  nnrp_stream_close(NULL);
  nnrp_response_clear(&response);
}

static void test_a_model_with_one_answer_gives_it_as_a_stream(NnrpEngine* engine) {
  static const float x[] = {1, 2};
  NnrpStream* stream = NULL;
  NnrpNext next = NNRP_NEXT_END;
  NnrpResponse response = NNRP_RESPONSE_INIT;
  OK(begin(engine, x, 2, 0, NULL, &stream, &error));
  OK(nnrp_stream_next(stream, 0, &next, &response, &error));
  CHECK(next == NNRP_NEXT_ANSWER && ((const float*)response.outputs[0]->tensor->dl_tensor.data)[1] == 5);
  OK(nnrp_stream_next(stream, 0, &next, &response, &error));
  CHECK(next == NNRP_NEXT_END);
  nnrp_stream_close(stream);
}

typedef struct Thread {
  NnrpEngine* engine;
  NnrpStream* stream;
  float first;
  NnrpStatus status;
} Thread;

static void* read_one(void* argument) {
  Thread* thread = argument;
  NnrpNext next = NNRP_NEXT_END;
  NnrpResponse response = NNRP_RESPONSE_INIT;
  thread->status = nnrp_stream_next(thread->stream, 0, &next, &response, NULL);
  nnrp_response_clear(&response);
  return NULL;
}

static void test_a_stream_that_takes_long_can_be_waited_for_or_stopped(NnrpEngine* engine) {
  static const float x[] = {1};
  NnrpNext next = NNRP_NEXT_END;
  NnrpCancel* cancel = NULL;
  NnrpStream *stream = NULL, *other = NULL;
  NnrpResponse response = NNRP_RESPONSE_INIT;
  OK(begin(engine, x, 1, nnrp_now_ns() + 20000000, NULL, &stream, &error));
  FAILS(nnrp_stream_next(stream, 0, &next, &response, &error), NNRP_DEADLINE_EXCEEDED, "DEADLINE");
  OK(nnrp_stream_next(stream, 0, &next, &response, &error));
  CHECK(next == NNRP_NEXT_END);
  nnrp_stream_close(stream);

  OK(nnrp_cancel_create(&cancel, &error));
  OK(begin(engine, x, 1, 0, cancel, &stream, &error));
  FAILS(begin(engine, x, 1, 0, cancel, &other, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  OK(nnrp_stream_next(stream, 1, &next, &response, &error));
  CHECK(next == NNRP_NEXT_WAIT);
  OK(nnrp_stream_next(stream, nnrp_now_ns() + 1000000, &next, &response, &error));
  CHECK(next == NNRP_NEXT_WAIT);
  Thread data = {engine, stream, 0, NNRP_OK};
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, read_one, &data) == 0);
  nnrp_cancel_raise(cancel);
  pthread_join(thread, NULL);
  CHECK(data.status == NNRP_CANCELLED);
  OK(nnrp_stream_next(stream, 0, &next, &response, &error));
  CHECK(next == NNRP_NEXT_END);
  nnrp_stream_close(stream);
  FAILS(begin(engine, x, 1, 0, cancel, &stream, &error), NNRP_CANCELLED, "CLIENT_CANCELLED");
  nnrp_cancel_free(cancel);
}

static void* read_often(void* argument) {
  Thread* thread = argument;
  NnrpResponse response = NNRP_RESPONSE_INIT;
  NnrpError told = NNRP_ERROR_INIT;
  for (int turn = 0; turn < 20 && thread->status == NNRP_OK; turn++) {
    const float x[] = {thread->first, thread->first + 1, thread->first + 2};
    NnrpNext next = NNRP_NEXT_ANSWER;
    thread->status = begin(thread->engine, x, 3, 0, NULL, &thread->stream, &told);
    for (int i = 0; thread->status == NNRP_OK && next != NNRP_NEXT_END; i++) {
      thread->status = nnrp_stream_next(thread->stream, 0, &next, &response, &told);
      if (next == NNRP_NEXT_END ? i != 3 : i > 2 || only(&response) != 2 * x[i] + 1) thread->status = NNRP_INTERNAL;
    }
    nnrp_stream_close(thread->stream);
  }
  nnrp_response_clear(&response);
  nnrp_error_clear(&told);
  return NULL;
}

static void test_four_threads_read_their_own(NnrpEngine* engine) {
  Thread data[4];
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) {
    data[i] = (Thread){engine, NULL, (float)(100 * i), NNRP_OK};
    CHECK(pthread_create(&threads[i], NULL, read_often, &data[i]) == 0);
  }
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL), CHECK(data[i].status == NNRP_OK);
}

static void test_wrong_answers_end_their_stream(NnrpEngine* engine) {
  static const char* wrong[] = {"null_tensor", "rank_2", "foreign_device", "other_datatype", "fails", "leaves_one", "deleter_gives", "tells_its_request"};
  static const char* right[] = {"", "gives_nothing", "gives_null", "gives_other", "gives_elsewhere"};
  static const float x[] = {1};
  const size_t n = sizeof wrong / sizeof *wrong;
  char options[64];
  NnrpStream* stream = NULL;
  NnrpResponse response = NNRP_RESPONSE_INIT;
  file("bad_stream", LINE);
  for (size_t i = 0; i < n + sizeof right / sizeof *right; i++) {
    NnrpStatus status = NNRP_OK;
    snprintf(options, sizeof options, "{\"do\": \"%s\"}", i >= n ? right[i - n] : strcmp(wrong[i], "fails") == 0 ? "says_nothing" : wrong[i]);
    OK(load_with(engine, "bad", options));
    OK(begin(engine, x, 1, 0, NULL, &stream, &error));
    for (NnrpNext next = NNRP_NEXT_ANSWER; status == NNRP_OK && next == NNRP_NEXT_ANSWER;) status = nnrp_stream_next(stream, 0, &next, &response, &error);
    CHECK(status == (i < n ? NNRP_RUNTIME_FAILURE : NNRP_OK));
    if (i == n - 1) CHECK(strcmp(error.message, "runtime bad: id a-1, parameters {\"beam\":4}") == 0);
    if (i < n) CHECK(strcmp(error.reason, "RUN_FAILED") == 0 && strncmp(error.message, "runtime bad: ", 13) == 0);
    nnrp_stream_close(stream);
    OK(nnrp_unload(engine, "line", NULL, &error));
  }
}

int main(int argc, char** argv) {
  models = argc > 1 ? argv[1] : ".";
  NnrpEngine* engine = engine_with_plugins();
  if (engine == NULL) return report();
  file("stream", "nnrp-sample");
  if (!OK(load_with(engine, "sample", "{\"stream\": true}"))) return report();
  test_answers_come_in_order_and_end(engine);
  test_what_does_not_fit_is_refused(engine);
  test_four_threads_read_their_own(engine);
  OK(nnrp_unload(engine, "line", NULL, &error));
  OK(load_with(engine, "sample", NULL));
  test_a_model_with_one_answer_gives_it_as_a_stream(engine);
  OK(nnrp_unload(engine, "line", NULL, &error));
  OK(load_with(engine, "sample", "{\"stream\": true, \"delay_ms\": 1}"));
  test_one_that_is_left_is_cancelled_and_an_answer_outlives_it(engine);
  OK(nnrp_unload(engine, "line", NULL, &error));
  OK(load_with(engine, "sample", "{\"stream\": true, \"delay_ms\": " FOREVER_MS "}"));
  test_a_stream_that_takes_long_can_be_waited_for_or_stopped(engine);
  OK(nnrp_unload(engine, "line", NULL, &error));
  test_wrong_answers_end_their_stream(engine);
  nnrp_engine_free(engine);
  return report();
}
