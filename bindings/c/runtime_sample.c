/* A whole runtime for NNRP: y = scale * x + 1 over FP32 [-1], at once or as a stream. Any number of threads may call it, and a run can be stopped.
 *
 *   cc -std=c11 -shared -fPIC -fvisibility=hidden -Ispec bindings/c/runtime_sample.c -o libsample.so
 *
 * A model of its is a file that begins with "nnrp-sample". docs/guide/write-a-runtime.md goes through it step by step.
 */
#define _POSIX_C_SOURCE 200809L
#include "nnrp.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What it is: the host checks a model's options against the schema before it calls load, so that nothing here has to. */
static const char INFO[] =
    "{\"version\": \"1.0\", \"formats\": [\"sample\"], \"devices\": [\"cpu\"], \"options\": {\"type\": \"object\", \"properties\": {"
    "\"scale\": {\"type\": \"number\", \"default\": 2, \"description\": \"what x is multiplied with\"},"
    "\"delay_ms\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 600000, \"default\": 0, \"description\": \"how long an answer takes\"},"
    "\"stream\": {\"type\": \"boolean\", \"default\": false, \"description\": \"whether each element of x is answered by itself\"}}}}";

/* What every session takes and gives; `settings` are those that hold. */
static const char SESSION[] =
    "{\"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [-1], \"symbols\": [\"n\"]}],"
    "\"outputs\": [{\"name\": \"y\", \"datatype\": \"FP32\", \"shape\": [-1], \"symbols\": [\"n\"]}],"
    "\"cancellable\": true, \"streams\": %s, \"settings\": {\"scale\": %.17g, \"delay_ms\": %ld}}";

/* A loaded model. Runs only read it, but for the count; what they read while an option changes is atomic. */
struct NnrpSession {
  _Atomic double scale;
  atomic_long delay_ms;
  atomic_ulong runs;
  int streams;
  char text[sizeof SESSION + 64];
};

/* The output: DLPack's tensor, and right behind it what it points to, so that one deleter ends it all. */
typedef struct Output {
  DLManagedTensorVersioned tensor;
  int64_t shape, stride;
  float y[];
} Output;

/* The number after a key. Options come without white space, and their types are checked: no more of a JSON reader is needed. */
static double number(const char* options, const char* key, double otherwise) {
  const char* found = strstr(options, key);
  return found == NULL ? otherwise : strtod(found + strlen(key), NULL);
}

static NnrpStatus info(const char** json, NnrpFault* fault) {
  (void)fault;
  *json = INFO;
  return NNRP_OK;
}

static NnrpStatus load(const NnrpModelSpec* spec, NnrpSession** session, NnrpFault* fault) {
  char mark[sizeof "nnrp-sample"] = "";
  FILE* file = fopen(spec->path, "rb");
  if (file == NULL) return nnrp_fail(fault, NNRP_NOT_FOUND, "FILE_NOT_FOUND", "model file: no such file");
  size_t read = fread(mark, 1, sizeof mark - 1, file);
  fclose(file);
  if (read != sizeof mark - 1 || strcmp(mark, "nnrp-sample") != 0)
    return nnrp_fail(fault, NNRP_INVALID_ARGUMENT, "INVALID_MODEL", "model file: expected it to begin with 'nnrp-sample'");
  NnrpSession* made = calloc(1, sizeof *made);
  if (made == NULL) return nnrp_fail(fault, NNRP_RUNTIME_FAILURE, "LOAD_FAILED", "out of memory");
  atomic_init(&made->scale, number(spec->options_json, "\"scale\":", 2));
  atomic_init(&made->delay_ms, (long)number(spec->options_json, "\"delay_ms\":", 0));
  made->streams = strstr(spec->options_json, "\"stream\":true") != NULL;
  *session = made;
  return NNRP_OK;
}

static NnrpStatus session_info(NnrpSession* session, const char** json, NnrpFault* fault) {
  (void)fault;
  snprintf(session->text, sizeof session->text, SESSION, session->streams ? "true" : "false", session->scale, session->delay_ms);
  *json = session->text;
  return NNRP_OK;
}

static void end_output(DLManagedTensorVersioned* tensor) { free(tensor); }

/* Answer `count` elements of x. The host has checked it: one input, FP32, one dimension, contiguous. */
static NnrpStatus answer(NnrpSession* session, const NnrpRun* run, int64_t first, int64_t count, NnrpFault* fault) {
  const struct timespec millisecond = {0, 1000000};
  for (long left = session->delay_ms; left > 0; left--) {
    if (*run->stop) return nnrp_fail(fault, NNRP_CANCELLED, "CLIENT_CANCELLED", "the run was stopped");
    nanosleep(&millisecond, NULL);
  }
  const DLTensor* x = &run->inputs[0]->tensor->dl_tensor;
  const float* values = (const float*)((const char*)x->data + x->byte_offset) + first;
  Output* output = malloc(sizeof *output + (size_t)count * sizeof(float));
  if (output == NULL) return nnrp_fail(fault, NNRP_RUNTIME_FAILURE, "RUN_FAILED", "out of memory");
  const float scale = (float)session->scale;
  for (int64_t i = 0; i < count; i++) output->y[i] = scale * values[i] + 1;

  output->shape = count, output->stride = 1;
  output->tensor = nnrp_borrow(output->y, kDLFloat, 32, 1, &output->shape);
  output->tensor.dl_tensor.strides = &output->stride;
  output->tensor.deleter = end_output;
  run->results[0]->tensor = &output->tensor;
  return NNRP_OK;
}

static NnrpStatus run(NnrpSession* session, const NnrpRun* run, NnrpFault* fault) {
  session->runs++;
  return answer(session, run, 0, run->inputs[0]->shape[0], fault);
}

/* An answer for each element, which goes out as it is given; where that fails, nobody wants more. */
static NnrpStatus stream(NnrpSession* session, const NnrpRun* run, NnrpFault* fault) {
  NnrpStatus status = NNRP_OK;
  session->runs++;
  for (int64_t i = 0; i < run->inputs[0]->shape[0] && status == NNRP_OK; i++)
    if ((status = answer(session, run, i, 1, fault)) == NNRP_OK) status = run->give(run);
  return status;
}

static void close_session(NnrpSession* session) { free(session); }

static NnrpStatus stats(NnrpSession* session, const char** json, NnrpFault* fault) {
  (void)fault;
  snprintf(session->text, sizeof session->text, "{\"runs\": %lu}", session->runs);
  *json = session->text;
  return NNRP_OK;
}

static NnrpStatus set_option(NnrpSession* session, const char* name, const char* value_json, NnrpFault* fault) {
  if (strcmp(name, "scale") == 0) session->scale = strtod(value_json, NULL);
  else if (strcmp(name, "delay_ms") == 0) session->delay_ms = strtol(value_json, NULL, 10);
  else return nnrp_fail(fault, NNRP_INVALID_ARGUMENT, "UNKNOWN_OPTION", name);
  return NNRP_OK;
}

static const NnrpRuntimeV1 TABLE = {
    .struct_size = sizeof(NnrpRuntimeV1),
    .abi_version = NNRP_ABI_VERSION,
    .name = "sample",
    .info = info,
    .load = load,
    .session_info = session_info,
    .run = run,
    .close = close_session,
    .stats = stats,
    .set_option = set_option,
    .stream = stream,
};

NNRP_EXPORT const NnrpRuntimeV1* nnrp_runtime_v1(void) { return &TABLE; }
