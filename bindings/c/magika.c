/* Tell what files are: the real file-type model magika, through libnnrp, in plain C11.
 *
 *   magika MODEL FILE...
 *
 * MODEL is the model.onnx of the Python package magika (standard_v3_3); its labels are read from the config.min.json beside it. Prints one JSON
 * object a file: {"file", "label_index", "label", "score", "latency_us"}, the last the median of a few runs.
 */
#include "nnrp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD = 1024, TAIL = 1024, BLOCK = 4096, PADDING = 256, RUNS = 5, MAX_LABELS = 1024 };

typedef struct Labels {
  char* text; /* the file, cut into the labels */
  const char* names[MAX_LABELS];
  size_t count;
} Labels;

static int fail(const char* what, const char* why) {
  fprintf(stderr, "magika: %s: %s\n", what, why);
  return 1;
}

static int fail_with(const char* what, NnrpError* error) {
  fprintf(stderr, "magika: %s: %s (%s): %s\n", what, nnrp_status_name(error->code), error->reason, error->message);
  nnrp_error_clear(error);
  return 1;
}

static char* read_text(const char* path) {
  FILE* file = fopen(path, "rb");
  char* text = NULL;
  long size = -1;
  if (file != NULL && fseek(file, 0, SEEK_END) == 0) size = ftell(file);
  if (size >= 0 && fseek(file, 0, SEEK_SET) == 0 && (text = malloc((size_t)size + 1)) != NULL) text[fread(text, 1, (size_t)size, file)] = '\0';
  if (file != NULL) fclose(file);
  return text;
}

/* The strings of "target_labels_space", which are plain words without escapes. */
static int read_labels(const char* model, Labels* labels) {
  static const char CONFIG[] = "config.min.json", KEY[] = "\"target_labels_space\":[";
  const char* slash = strrchr(model, '/');
  size_t folder = slash == NULL ? 0 : (size_t)(slash - model) + 1;
  char* path = malloc(folder + sizeof CONFIG);
  if (path == NULL) return fail(model, "no memory");
  memcpy(path, model, folder);
  memcpy(path + folder, CONFIG, sizeof CONFIG);
  labels->text = read_text(path);
  free(path);
  char* at = labels->text == NULL ? NULL : strstr(labels->text, KEY);
  if (at == NULL) return fail(CONFIG, "no target_labels_space beside the model");
  at += sizeof KEY - 1;
  while (*at == '"' && labels->count < MAX_LABELS) {
    char* end = strchr(at + 1, '"');
    if (end == NULL) break;
    labels->names[labels->count++] = at + 1;
    *end = '\0';
    at = end[1] == ',' ? end + 2 : end + 1;
  }
  return 0;
}

static int is_space(unsigned char byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

/* The first bytes after leading white space and the last ones before trailing white space; missing places hold PADDING. */
static int read_features(const char* path, int32_t features[HEAD + TAIL]) {
  unsigned char block[BLOCK];
  FILE* file = fopen(path, "rb");
  if (file == NULL) return fail(path, strerror(errno));
  for (int i = 0; i < HEAD + TAIL; i++) features[i] = PADDING;

  size_t size = fread(block, 1, BLOCK, file), start = 0;
  while (start < size && is_space(block[start])) start++;
  for (size_t i = 0; i < HEAD && start + i < size; i++) features[i] = block[start + i];

  if (size == BLOCK && fseek(file, -(long)BLOCK, SEEK_END) == 0) size = fread(block, 1, BLOCK, file);
  int broken = ferror(file);
  fclose(file);
  if (broken) return fail(path, "cannot be read");
  while (size > 0 && is_space(block[size - 1])) size--;
  for (size_t i = 0; i < TAIL && i < size; i++) features[HEAD + TAIL - 1 - i] = block[size - 1 - i];
  return 0;
}

static void print_text(const char* text) {
  putchar('"');
  for (; *text != '\0'; text++) {
    unsigned char byte = (unsigned char)*text;
    if (byte == '"' || byte == '\\') printf("\\%c", byte);
    else if (byte < 0x20) printf("\\u%04x", byte);
    else putchar(byte);
  }
  putchar('"');
}

static int by_size(const void* a, const void* b) {
  uint64_t x = *(const uint64_t*)a, y = *(const uint64_t*)b;
  return (x > y) - (x < y);
}

static int print_answer(const char* path, const NnrpResponse* response, const Labels* labels, double latency_us) {
  const DLTensor* scores = &response->outputs[0]->tensor->dl_tensor;
  if (response->outputs[0]->datatype != NNRP_FP32 || scores->ndim != 2) return fail(path, "the model's answer is not FP32 of two dimensions");
  const float* score = (const float*)scores->data;
  size_t count = (size_t)scores->shape[1], best = 0;
  for (size_t i = 1; i < count; i++) {
    if (score[i] > score[best]) best = i;
  }
  if (best >= labels->count) return fail(path, "the model has more labels than its configuration");
  printf("{\"file\": ");
  print_text(path);
  printf(", \"label_index\": %zu, \"label\": \"%s\", \"score\": %.9g, \"latency_us\": %.1f}\n", best, labels->names[best], score[best], latency_us);
  return 0;
}

static int classify(NnrpEngine* engine, const char* input_name, const Labels* labels, const char* path) {
  static int32_t features[HEAD + TAIL];
  static const int64_t shape[] = {1, HEAD + TAIL};
  if (read_features(path, features) != 0) return 1;

  DLManagedTensorVersioned memory = nnrp_borrow(features, kDLInt, 32, 2, shape);
  NnrpTensor input = {.struct_size = sizeof input, .name = input_name, .tensor = &memory};
  const NnrpTensor* inputs[] = {&input};
  NnrpRequest request = {.struct_size = sizeof request, .model = "magika", .inputs = inputs, .n_inputs = 1};
  NnrpResponse response = NNRP_RESPONSE_INIT;
  NnrpError error = NNRP_ERROR_INIT;
  uint64_t took[RUNS];
  for (int run = 0; run < RUNS; run++) {
    uint64_t start = nnrp_now_ns();
    if (nnrp_infer(engine, &request, &response, &error) != NNRP_OK) return fail_with(path, &error);
    took[run] = nnrp_now_ns() - start;
  }
  qsort(took, RUNS, sizeof took[0], by_size);
  int failed = print_answer(path, &response, labels, (double)took[RUNS / 2] / 1e3);
  nnrp_response_clear(&response);
  return failed;
}

static int classify_all(NnrpEngine* engine, const char* model, char** paths, int n_paths, Labels* labels) {
  NnrpError error = NNRP_ERROR_INIT;
  const NnrpModelSpec spec = {.struct_size = sizeof spec, .name = "magika", .path = model};
  const NnrpSignature* signature = NULL;
  if (read_labels(model, labels) != 0) return 1;
  if (nnrp_load(engine, &spec, &error) != NNRP_OK) return fail_with("load", &error);
  if (nnrp_signature(engine, "magika", NULL, &signature, &error) != NNRP_OK) return fail_with("signature", &error);
  int failed = signature->n_inputs == 1 ? 0 : fail(model, "not magika: expected one input");
  for (int i = 0; i < n_paths && failed == 0; i++) failed = classify(engine, signature->inputs[0]->name, labels, paths[i]);
  nnrp_signature_free(signature);
  return failed;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: magika MODEL FILE...\n");
    return 2;
  }
  if (nnrp_abi_version() >> 16 != NNRP_ABI_MAJOR) return fail("libnnrp", "another major version of the ABI than this program's");
  NnrpEngine* engine = NULL;
  NnrpError error = NNRP_ERROR_INIT;
  Labels labels = {0};
  if (nnrp_engine_create(NULL, &engine, &error) != NNRP_OK) return fail_with("engine", &error);
  int failed = classify_all(engine, argv[1], argv + 2, argc - 2, &labels);
  nnrp_engine_free(engine);
  free(labels.text);
  return failed;
}
