/* A runtime as ABI 1.0 had it, with declarations of its own: it must load for ever (spec §8.8). Nothing in this file may change.
 *
 * y = 2 x + 1 over FP32 [-1], for whatever file. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct Tensor10 {
  uint32_t version_major, version_minor;
  void* manager_ctx;
  void (*deleter)(struct Tensor10* self);
  uint64_t flags;
  void* data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
} Tensor10;

typedef struct Named10 {
  size_t struct_size;
  const char* name;
  Tensor10* tensor;
  int32_t datatype;
  int32_t ndim;
  const int64_t* shape;
} Named10;

typedef struct Fault10 {
  size_t struct_size;
  char reason[64];
  char message[1024];
  char details_json[1024];
} Fault10;

typedef struct Spec10 {
  size_t struct_size;
  const char *name, *version, *path, *runtime, *options_json, *device, *precision;
} Spec10;

typedef struct Run10 {
  size_t struct_size;
  const Named10* const* inputs;
  size_t n_inputs;
  const size_t* outputs;
  size_t n_outputs;
  Named10* const* results;
  const volatile int32_t* stop;
  uint64_t deadline_ns;
} Run10;

typedef struct Table10 {
  size_t struct_size;
  uint32_t abi_version;
  const char* name;
  int32_t (*info)(const char** json, Fault10* fault);
  int32_t (*load)(const Spec10* spec, void** session, Fault10* fault);
  int32_t (*session_info)(void* session, const char** json, Fault10* fault);
  int32_t (*run)(void* session, const Run10* run, Fault10* fault);
  void (*close)(void* session);
  void (*cancel)(void* session, const Run10* run);
  int32_t (*stats)(void* session, const char** json, Fault10* fault);
  int32_t (*set_option)(void* session, const char* name, const char* value_json, Fault10* fault);
  int32_t (*warm_up)(void* session, Fault10* fault);
} Table10;

typedef struct Output10 {
  Tensor10 tensor;
  int64_t shape, stride;
  float y[];
} Output10;

static int32_t info(const char** json, Fault10* fault) {
  (void)fault;
  *json = "{\"version\": \"1.0\", \"formats\": [\"any\"]}";
  return 0;
}

static int32_t load(const Spec10* spec, void** session, Fault10* fault) {
  static int loaded;
  (void)fault;
  if (spec->struct_size < sizeof *spec || spec->path == NULL || spec->device == NULL || spec->precision == NULL) return 3;
  *session = &loaded;
  return 0;
}

static int32_t session_info(void* session, const char** json, Fault10* fault) {
  (void)session, (void)fault;
  *json = "{\"inputs\": [{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [-1]}], \"outputs\": [{\"name\": \"y\", \"datatype\": \"FP32\", \"shape\": [-1]}]}";
  return 0;
}

static void end(Tensor10* tensor) { free(tensor); }

static int32_t run(void* session, const Run10* run, Fault10* fault) {
  (void)session, (void)fault;
  if (run->struct_size < sizeof *run || run->n_inputs != 1 || run->n_outputs != 1 || run->outputs[0] != 0 || *run->stop) return 3;
  const Tensor10* x = run->inputs[0]->tensor;
  Output10* output = calloc(1, sizeof *output + (size_t)x->shape[0] * sizeof(float));
  if (output == NULL) return 2;
  for (int64_t i = 0; i < x->shape[0]; i++) output->y[i] = 2 * ((const float*)x->data)[i] + 1;
  output->shape = x->shape[0], output->stride = 1;
  output->tensor = (Tensor10){1, 0, NULL, end, 0, output->y, 1, 0, 1, 2, 32, 1, &output->shape, &output->stride, 0};
  run->results[0]->tensor = &output->tensor;
  return 0;
}

static void close_session(void* session) { (void)session; }

static const Table10 TABLE = {sizeof(Table10), 1 << 16, "v1_0", info, load, session_info, run, close_session, NULL, NULL, NULL, NULL};

__attribute__((visibility("default"))) const Table10* nnrp_runtime_v1(void) { return &TABLE; }
