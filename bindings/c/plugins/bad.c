/* A plug-in that does what none should, for the tests.
 *
 * What is wrong with its table is said when it is compiled: -D'BREAK=table->load = NULL', -D'INFO="[]"', -D'ENTRY=other', -DTABLE=NULL. What is wrong with
 * a run or a load is the option `do`; what a session tells of itself is the content of the model's file. */
#define _POSIX_C_SOURCE 200809L
#include "nnrp.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef BREAK
#define BREAK (void)0
#endif
#ifndef INFO
#define INFO "{\"version\": \"9\", \"formats\": [\"bad\"], \"options\": {\"properties\": {\"do\": {\"type\": \"string\"}}}}"
#endif
#ifndef ENTRY
#define ENTRY nnrp_runtime_v1
#endif
#ifndef TABLE
#define TABLE &longer.table
#endif

struct NnrpSession {
  char what[64];
  char told[4096];
  int* nowhere;
  _Atomic(const NnrpRun*) cancelled;
};

typedef struct Output {
  DLManagedTensorVersioned tensor;
  int64_t shape[2], strides[2];
  double elements[8];
} Output;

static _Thread_local long alive;
static atomic_long inside;
static atomic_int released;
/* The stream that goes on, or went on last. */
static _Thread_local const NnrpRun* giving;
static _Thread_local NnrpStatus (*give)(const NnrpRun* run);
static _Thread_local int gives_at_the_end;

/* Sessions and tensors that the host has not ended. */
NNRP_EXPORT long bad_alive(void) { return alive; }

/* Let the streams end that never end. */
NNRP_EXPORT void bad_release(void) { released = 1; }

static NnrpStatus info(const char** json, NnrpFault* fault) {
  *json = INFO;
  return *json == NULL || **json != '!' ? NNRP_OK : nnrp_fail(fault, NNRP_FAILED_PRECONDITION, "", "no beads at /usr/lib/beads.so");
}

static int does(const NnrpSession* session, const char* what) { return strcmp(session->what, what) == 0; }

static void fill(char* text, size_t size) { memset(text, 'a', size); }

static NnrpStatus load(const NnrpModelSpec* spec, NnrpSession** session, NnrpFault* fault) {
  NnrpSession* made = calloc(1, sizeof *made);
  const char* what = strstr(spec->options_json, "\"do\":\"");
  if (what != NULL) snprintf(made->what, sizeof made->what, "%.*s", (int)strcspn(what + 6, "\""), what + 6);
  FILE* file = fopen(spec->path, "rb");
  if (file != NULL) made->told[fread(made->told, 1, sizeof made->told - 1, file)] = '\0', fclose(file);
  if (does(made, "load_gives_nothing")) return free(made), NNRP_OK;
  if (does(made, "load_fails")) {
    snprintf(fault->details_json, sizeof fault->details_json, "{\"bead\": 3, \"file\": \"%.900s\"}", spec->path);
    char message[1024];
    snprintf(message, sizeof message, "cannot read %.900s", spec->path);
    *session = (NnrpSession*)1; /* given out by a call that failed: never to be touched */
    return free(made), nnrp_fail(fault, NNRP_INVALID_ARGUMENT, "INVALID_MODEL", message);
  }
  if (does(made, "load_says_nothing")) return free(made), NNRP_RUNTIME_FAILURE;
  if (does(made, "load_status_99")) return free(made), nnrp_fail(fault, 99, "NONSENSE", "ninety-nine");
  alive++;
  *session = made;
  return NNRP_OK;
}

static NnrpStatus session_info(NnrpSession* session, const char** json, NnrpFault* fault) {
  if (does(session, "session_info_fails")) return nnrp_fail(fault, NNRP_RUNTIME_FAILURE, NULL, "forgot");
  *json = does(session, "session_info_is_null") ? NULL : session->told;
  return NNRP_OK;
}

static void end(DLManagedTensorVersioned* tensor) {
  alive--;
  if (gives_at_the_end) give(giving);
  free(tensor);
}

/* Two FP32 elements, 3 and 5, with an owner. */
static Output* good(void) {
  Output* output = calloc(1, sizeof *output);
  float* elements = (float*)output->elements;
  elements[0] = 3, elements[1] = 5;
  output->shape[0] = 2, output->strides[0] = 1;
  output->tensor = nnrp_borrow(elements, kDLFloat, 32, 1, output->shape);
  output->tensor.dl_tensor.strides = output->strides;
  output->tensor.deleter = end;
  alive++;
  return output;
}

static void spoil(const NnrpSession* session, Output* output, NnrpTensor* result) {
  DLTensor* tensor = &output->tensor.dl_tensor;
  if (does(session, "null_data")) tensor->data = NULL;
  if (does(session, "other_dlpack")) output->tensor.version.major = 2;
  if (does(session, "foreign_device")) tensor->device.device_type = kDLCUDA;
  if (does(session, "lanes")) tensor->dtype.lanes = 4;
  if (does(session, "other_datatype")) tensor->dtype.bits = 64;
  if (does(session, "no_datatype")) tensor->dtype.code = 200;
  if (does(session, "claims_datatype")) result->datatype = NNRP_INT64;
  if (does(session, "claims_no_datatype")) result->datatype = 77;
  if (does(session, "claims_shape")) result->ndim = 1, result->shape = &output->strides[0];
  if (does(session, "rank_2")) tensor->ndim = 2, output->shape[1] = 1, output->strides[1] = 1;
  if (does(session, "negative_dim")) output->shape[0] = -2;
  if (does(session, "huge_dim")) output->shape[0] = INT64_MAX;
  if (does(session, "null_shape")) tensor->shape = NULL;
  if (does(session, "many_dims")) tensor->ndim = 65;
  if (does(session, "negative_ndim")) tensor->ndim = -1;
  if (does(session, "strides_outside")) output->strides[0] = INT64_MAX;
  if (does(session, "strides_repeat")) output->shape[0] = (int64_t)1 << 40, output->strides[0] = 0;
  if (does(session, "strides_back")) output->strides[0] = -1, tensor->data = (float*)tensor->data + 1;
  if (does(session, "byte_offset")) tensor->byte_offset = UINT64_MAX;
  if (does(session, "half_offset")) tensor->byte_offset = (uint64_t)1 << 63;
  if (does(session, "misaligned")) tensor->data = (char*)tensor->data + 1;
  if (does(session, "offset")) tensor->byte_offset = 4, output->shape[0] = 1;
  if (does(session, "no_elements")) output->shape[0] = 0, tensor->data = NULL;
  if (does(session, "bool_2") || does(session, "bytes") || does(session, "bytes_long")) {
    tensor->dtype.code = does(session, "bool_2") ? kDLBool : kDLUInt, tensor->dtype.bits = 8;
    memcpy(output->elements, does(session, "bool_2") ? "\1\2\0\0\0" : does(session, "bytes") ? "\2\0\0\0hi" : "\7\0\0\0hi", 6);
    if (!does(session, "bool_2")) output->shape[0] = 6, result->datatype = NNRP_BYTES, result->ndim = 0;
  }
}

static NnrpStatus fails(NnrpSession* session, NnrpFault* fault) {
  if (does(session, "says_nothing")) return NNRP_RUNTIME_FAILURE;
  if (does(session, "status_77")) return nnrp_fail(fault, 77, "NONSENSE", "seventy-seven");
  if (does(session, "status_minus_1")) return -1;
  if (does(session, "our_defect")) return nnrp_fail(fault, NNRP_INTERNAL, "BUG", "blames the host");
  if (does(session, "paints")) {
    snprintf(fault->details_json, sizeof fault->details_json, "{\"bead\\u001b[2J\": [\"red\\r\\nblue\"]}");
    return nnrp_fail(fault, NNRP_RUNTIME_FAILURE, "RUN_FAILED\033[1m", "\033]0;beads\007 are\r\nred\x7f at /usr/lib/beads.so");
  }
  if (does(session, "tells_a_path")) return nnrp_fail(fault, NNRP_RUNTIME_FAILURE, "RUN_FAILED", "in /usr/lib/secret/beads.cc:12");
  if (does(session, "busy")) return nnrp_fail(fault, NNRP_RESOURCE_EXHAUSTED, "QUEUE_FULL", "all beads are in use");
  if (does(session, "unterminated")) {
    fill(fault->reason, sizeof fault->reason);
    fill(fault->message, sizeof fault->message);
    fill(fault->details_json, sizeof fault->details_json);
    return NNRP_RUNTIME_FAILURE;
  }
  return NNRP_OK;
}

static void pause_1ms(void) {
  const struct timespec millisecond = {0, 1000000};
  nanosleep(&millisecond, NULL);
}

/* What is left of the last cancelled run must not look like one of a later run at the same address. */
static void wait_for_cancel(NnrpSession* session, const NnrpRun* run) {
  while (session->cancelled != run) pause_1ms();
  session->cancelled = NULL;
}

static NnrpStatus tells(const NnrpRun* run, NnrpFault* fault) {
  char text[256];
  snprintf(text, sizeof text, "id %s, parameters %s", run->id == NULL ? "NULL" : run->id, run->parameters_json == NULL ? "NULL" : run->parameters_json);
  return nnrp_fail(fault, NNRP_RUNTIME_FAILURE, "RUN_FAILED", text);
}

static NnrpStatus run(NnrpSession* session, const NnrpRun* run, NnrpFault* fault) {
  NnrpStatus status = does(session, "tells_its_request") ? tells(run, fault) : fails(session, fault);
  if (status != NNRP_OK) return status;
  if (does(session, "waits_for_cancel")) {
    wait_for_cancel(session, run);
    return NNRP_CANCELLED;
  }
  if (does(session, "wants_to_be_alone")) {
    int alone = ++inside == 1;
    pause_1ms();
    inside--;
    if (!alone) return nnrp_fail(fault, NNRP_RUNTIME_FAILURE, "RUN_FAILED", "not alone");
  }
  if (does(session, "crashes")) *(volatile int*)session->nowhere = 1;
  if (does(session, "null_tensor")) return NNRP_OK;
  if (does(session, "no_pointer")) return run->results[0]->tensor = (DLManagedTensorVersioned*)1, NNRP_OK;
  if (does(session, "input_back")) return run->results[0]->tensor = run->inputs[0]->tensor, NNRP_OK;
  for (size_t i = 0; i < run->n_outputs; i++) {
    Output* output = good();
    run->results[i]->tensor = &output->tensor;
    spoil(session, output, run->results[i]);
    if (does(session, "input_memory")) {
      output->tensor.dl_tensor.data = run->inputs[0]->tensor->dl_tensor.data;
      output->shape[0] = run->inputs[0]->tensor->dl_tensor.shape[0];
    }
    if (does(session, "first_only")) break;
    if (does(session, "twice") && i == 0) {
      for (i = 1; i < run->n_outputs; i++) run->results[i]->tensor = &output->tensor;
    }
  }
  if (does(session, "no_owner") || does(session, "no_owner_huge")) {
    static const float elements[] = {3, 5};
    static const int64_t shape[] = {2}, huge[] = {(int64_t)1 << 45};
    static DLManagedTensorVersioned tensor;
    end(run->results[0]->tensor);
    tensor = nnrp_borrow(elements, kDLFloat, 32, 1, does(session, "no_owner") ? shape : huge);
    run->results[0]->tensor = &tensor;
  }
  return does(session, "fails_at_last") ? nnrp_fail(fault, NNRP_RUNTIME_FAILURE, "RUN_FAILED", "after all") : NNRP_OK;
}

/* Whether a call of `give` was out of turn. */
static NnrpStatus refused(NnrpStatus status, NnrpFault* fault) {
  return status == NNRP_FAILED_PRECONDITION ? NNRP_OK : nnrp_fail(fault, NNRP_RUNTIME_FAILURE, "RUN_FAILED", "was taken out of turn");
}

static void* give_elsewhere(void* run) {
  NnrpStatus status = ((const NnrpRun*)run)->give(run);
  return status == NNRP_FAILED_PRECONDITION ? run : NULL;
}

static NnrpStatus stream_oddly(NnrpSession* session, const NnrpRun* run, NnrpFault* fault) {
  if (does(session, "tells_its_request")) return tells(run, fault);
  if (does(session, "gives_nothing")) return NNRP_OK;
  if (does(session, "gives_null")) return refused(run->give(NULL), fault);
  if (does(session, "gives_other")) return refused(run->give((const NnrpRun*)(const void*)session), fault);
  if (does(session, "gives_elsewhere")) {
    pthread_t thread;
    void* said = NULL;
    if (pthread_create(&thread, NULL, give_elsewhere, (void*)(uintptr_t)run) == 0) pthread_join(thread, &said);
    return refused(said == run ? NNRP_FAILED_PRECONDITION : NNRP_OK, fault);
  }
  if (does(session, "leaves_one")) return run->results[0]->tensor = &good()->tensor, NNRP_OK;
  return NNRP_CANCELLED; /* none of these */
}

/* Two answers, the second spoilt as `do` says, and whatever else it says. */
static NnrpStatus stream(NnrpSession* session, const NnrpRun* run, NnrpFault* fault) {
  NnrpStatus status = stream_oddly(session, run, fault);
  if (status != NNRP_CANCELLED) return status;
  giving = run, give = run->give, status = NNRP_OK;
  for (int i = 0; i < 2 || (does(session, "never_ends") && !released); i++) {
    if (does(session, "never_ends") && i > 1) pause_1ms();
    if (does(session, "deleter_gives")) gives_at_the_end = 1;
    if (i == 0 || !does(session, "null_tensor")) {
      Output* output = good();
      run->results[0]->tensor = &output->tensor;
      if (i == 1) spoil(session, output, run->results[0]);
      if (does(session, "deleter_gives")) output->tensor.dl_tensor.ndim = 2;
    }
    status = run->give(run);
    gives_at_the_end = 0;
    if (status != NNRP_OK && !does(session, "never_ends") && !does(session, "deaf")) return status;
  }
  if (does(session, "waits_for_cancel")) wait_for_cancel(session, run);
  return does(session, "deaf") ? NNRP_OK : fails(session, fault);
}

/* What came of an answer that was given after the end. */
static NnrpStatus stats(NnrpSession* session, const char** json, NnrpFault* fault) {
  (void)fault;
  snprintf(session->told, sizeof session->told, "{\"late\": %d}", give == NULL ? 0 : give(giving));
  *json = session->told;
  return NNRP_OK;
}

static void cancel(NnrpSession* session, const NnrpRun* run) {
  session->cancelled = run;
}

static void close_session(NnrpSession* session) {
  alive--;
  free(session);
}

static struct {
  NnrpRuntimeV1 table;
  void* newer;
} longer = {{
    .struct_size = sizeof(NnrpRuntimeV1),
    .abi_version = NNRP_ABI_VERSION,
    .name = "bad",
    .info = info,
    .load = load,
    .session_info = session_info,
    .run = run,
    .close = close_session,
    .cancel = cancel,
    .stats = stats,
    .stream = stream,
}, NULL};

NNRP_EXPORT const NnrpRuntimeV1* ENTRY(void) {
  NnrpRuntimeV1* table = &longer.table;
  (void)table;
  BREAK;
  return TABLE;
}
