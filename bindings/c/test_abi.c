/* Every function of nnrp.h but nnrp_infer, with good and with bad arguments: test_abi MODELS. */
#include "check.h"

static void test_versions(void) {
  static const char* names[] = {"OK", "CANCELLED", "RUNTIME_FAILURE", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
                                "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", NULL, NULL, "UNIMPLEMENTED", "INTERNAL",
                                "UNAVAILABLE", NULL, "UNAUTHENTICATED", NULL};
  CHECK(nnrp_abi_version() == (NNRP_ABI_MAJOR << 16 | NNRP_ABI_MINOR));
  CHECK(strchr(nnrp_version(), '.') != NULL);
  for (NnrpStatus status = 0; status < 18; status++) {
    const char* name = nnrp_status_name(status);
    CHECK(names[status] == NULL ? name == NULL : name != NULL && strcmp(name, names[status]) == 0);
  }
  CHECK(nnrp_status_name(-1) == NULL && nnrp_status_name(INT32_MAX) == NULL);
  uint64_t before = nnrp_now_ns();
  CHECK(before > 0 && nnrp_now_ns() >= before);
}

static void test_null_is_nothing_to_end(void) {
  nnrp_error_clear(NULL);
  nnrp_string_free(NULL);
  nnrp_engine_free(NULL);
  nnrp_signature_free(NULL);
  nnrp_response_clear(NULL);
  nnrp_cancel_raise(NULL);
  nnrp_cancel_free(NULL);
  NnrpResponse response = NNRP_RESPONSE_INIT;
  nnrp_response_clear(&response);
  nnrp_response_clear(&response);
  nnrp_error_clear(&error);
  nnrp_error_clear(&error);
  CHECK(error.code == NNRP_OK && error.message == NULL);
}

static void test_engine_options(void) {
  NnrpEngine* engine = (NnrpEngine*)&engine;
  FAILS(nnrp_engine_create(NULL, NULL, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  static const char* unknown[] = {"{\"x\": 1}", "{\"runtimes\": {\"x\": {}}}", "{\"runtimes\": {\"onnxruntime\": {\"x\": 1}}}"};
  static const char* invalid[] = {"{", "[]", "{\"runtimes\": 1}", "{\"runtimes\": {\"onnxruntime\": {\"library\": 1}}}"};
  NnrpEngineOptions options = {.struct_size = sizeof options};
  for (size_t i = 0; i < 3; i++) options.settings_json = unknown[i], FAILS(nnrp_engine_create(&options, &engine, &error), NNRP_INVALID_ARGUMENT, "UNKNOWN_OPTION");
  CHECK(engine == NULL);
  for (size_t i = 0; i < 4; i++) options.settings_json = invalid[i], FAILS(nnrp_engine_create(&options, &engine, &error), NNRP_INVALID_ARGUMENT, "INVALID_OPTION");
  options.settings_json = "{\"runtimes\": {\"onnxruntime\": {\"library\": \"/no/such\"}}}";
  FAILS(nnrp_engine_create(&options, &engine, &error), NNRP_FAILED_PRECONDITION, "RUNTIME_NOT_INSTALLED");
  CHECK(nnrp_engine_create(&options, &engine, NULL) == NNRP_FAILED_PRECONDITION);
  options.settings_json = "\xff";
  FAILS(nnrp_engine_create(&options, &engine, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  options.settings_json = NULL;
  OK(nnrp_engine_create(&options, &engine, &error));
  nnrp_engine_free(engine);
}

static void test_struct_sizes(void) {
  struct {
    NnrpEngineOptions options;
    uint64_t newer;
  } caller = {.options = {.struct_size = sizeof caller}};
  NnrpEngine* engine = NULL;
  OK(nnrp_engine_create(&caller.options, &engine, &error));
  nnrp_engine_free(engine);
  caller.newer = 1;
  FAILS(nnrp_engine_create(&caller.options, &engine, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  static const size_t wrong[] = {0, 1, sizeof(size_t), 1 << 20, SIZE_MAX};
  for (size_t i = 0; i < 5; i++) {
    NnrpEngineOptions options = {.struct_size = wrong[i]};
    FAILS(nnrp_engine_create(&options, &engine, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
    NnrpError bad = {.struct_size = wrong[i], .code = 77};
    CHECK(nnrp_engine_create(NULL, &engine, &bad) == NNRP_INVALID_ARGUMENT && bad.code == 77);
    nnrp_error_clear(&bad);
  }
}

static void test_loading(NnrpEngine* engine) {
  NnrpModelSpec spec = {.struct_size = sizeof spec};
  FAILS(nnrp_load(NULL, &spec, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_load(engine, NULL, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_load(engine, &spec, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  spec.name = "m", spec.path = "/no/such.onnx", spec.runtime = "abacus";
  FAILS(nnrp_load(engine, &spec, &error), NNRP_FAILED_PRECONDITION, "RUNTIME_NOT_INSTALLED");
  FAILS(load(engine, "m", NULL, "no such", NULL), NNRP_NOT_FOUND, "FILE_NOT_FOUND");
  FAILS(load(engine, "m\xff", NULL, "double", NULL), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(load(engine, "../m", NULL, "double", NULL), NNRP_INVALID_ARGUMENT, "INVALID_OPTION");
  FAILS(load(engine, "m", "", "double", NULL), NNRP_INVALID_ARGUMENT, "INVALID_OPTION");
  FAILS(load(engine, "m", NULL, "double", "[]"), NNRP_INVALID_ARGUMENT, "INVALID_OPTION");
  FAILS(load(engine, "m", NULL, "double", "{\"no_such_option\": 1}"), NNRP_INVALID_ARGUMENT, "UNKNOWN_OPTION");
  spec = (NnrpModelSpec){.struct_size = sizeof spec, .name = "m", .path = models};
  FAILS(nnrp_load(engine, &spec, &error), NNRP_INVALID_ARGUMENT, "INVALID_MODEL");
  OK(load(engine, "m", NULL, "double", "{}"));
  FAILS(load(engine, "m", "1", "double", NULL), NNRP_ALREADY_EXISTS, "MODEL_EXISTS");
  OK(load(engine, "m", "2", "double", NULL));
  FAILS(nnrp_unload(NULL, "m", NULL, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_unload(engine, NULL, NULL, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_unload(engine, "n", NULL, &error), NNRP_NOT_FOUND, "MODEL_NOT_FOUND");
  FAILS(nnrp_unload(engine, "m", "3", &error), NNRP_NOT_FOUND, "VERSION_NOT_FOUND");
  OK(nnrp_unload(engine, "m", "2", &error));
  OK(nnrp_unload(engine, "m", "", &error));
  FAILS(nnrp_unload(engine, "m", NULL, &error), NNRP_NOT_FOUND, "MODEL_NOT_FOUND");
  CHECK(nnrp_unload(engine, "m", NULL, NULL) == NNRP_NOT_FOUND);
}

static void test_a_described_model_is_loaded_under_the_names_of_its_description(NnrpEngine* engine) {
  char description[2048], *json = NULL;
  snprintf(description, sizeof description,
           "{\"name\": \"said\", \"path\": \"%s/double.onnx\", \"runtime\": [\"onnxruntime\"], \"labels\": {\"of\": \"C\"},"
           " \"inputs\": {\"x\": {\"name\": \"given\", \"shape\": [3]}}, \"outputs\": [\"taken\"]}",
           models);
  OK(nnrp_load_json(engine, description, &error));
  OK(nnrp_metadata(engine, "said", NULL, &json, &error));
  CHECK(strstr(json, "{\"name\":\"given\",\"datatype\":\"FP32\",\"shape\":[3]}") != NULL && strstr(json, "\"name\":\"taken\"") != NULL);
  nnrp_string_free(json);
  FAILS(nnrp_load_json(engine, "{\"name\": \"said\"", &error), NNRP_INVALID_ARGUMENT, "INVALID_OPTION");
  const char* wrong = "{\"name\": \"m\", \"path\": \"m\", \"inputs\": {\"x\": {\"shape\": 1}}}";
  FAILS(nnrp_load_json(engine, wrong, &error), NNRP_INVALID_ARGUMENT, "INVALID_OPTION");
  CHECK(strstr(error.details_json, "\"path\":\"inputs['x'].shape\"") != NULL);
  FAILS(nnrp_load_json(engine, NULL, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_load_json(NULL, description, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  OK(nnrp_unload(engine, "said", NULL, &error));
}

static void test_telling(NnrpEngine* engine) {
  char* json = (char*)&json;
  FAILS(nnrp_runtimes(NULL, &json, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  CHECK(json == NULL);
  FAILS(nnrp_runtimes(engine, NULL, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  OK(nnrp_runtimes(engine, &json, &error));
  CHECK(strstr(json, "\"name\":\"onnxruntime\"") != NULL && strstr(json, "CPUExecutionProvider") != NULL);
  nnrp_string_free(json);
  FAILS(nnrp_models(NULL, &json, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_models(engine, NULL, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  OK(nnrp_models(engine, &json, &error));
  CHECK(strstr(json, "\"name\":\"double\",\"version\":\"1\",\"runtime\":\"onnxruntime\"") != NULL);
  nnrp_string_free(json);
  FAILS(nnrp_metadata(NULL, "double", NULL, &json, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_metadata(engine, NULL, NULL, &json, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_metadata(engine, "double", NULL, NULL, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_metadata(engine, "nothing", NULL, &json, &error), NNRP_NOT_FOUND, "MODEL_NOT_FOUND");
  FAILS(nnrp_metadata(engine, "double", "9", &json, &error), NNRP_NOT_FOUND, "VERSION_NOT_FOUND");
  OK(nnrp_metadata(engine, "double", NULL, &json, &error));
  CHECK(strstr(json, "\"platform\":\"onnxruntime_onnx\"") != NULL && strstr(json, "{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1]}") != NULL);
  nnrp_string_free(json);
}

static void test_signatures(NnrpEngine* engine) {
  const NnrpSignature* signature = NULL;
  FAILS(nnrp_signature(NULL, "double", NULL, &signature, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_signature(engine, "double", NULL, NULL, &error), NNRP_INVALID_ARGUMENT, "MALFORMED");
  FAILS(nnrp_signature(engine, "nothing", NULL, &signature, &error), NNRP_NOT_FOUND, "MODEL_NOT_FOUND");
  CHECK(signature == NULL);
  OK(nnrp_signature(engine, "dynamic", NULL, &signature, &error));
  CHECK(signature->struct_size == sizeof *signature && strcmp(signature->model, "dynamic") == 0 && strcmp(signature->version, "1") == 0);
  CHECK(signature->n_inputs == 1 && signature->n_outputs == 1);
  const NnrpTensorSpec* x = signature->inputs[0];
  CHECK(x->struct_size == sizeof *x && strcmp(x->name, "x") == 0 && x->datatype == NNRP_FP32 && x->optional == 0 && x->ndim == 3);
  CHECK(x->shape[0] == -1 && x->shape[1] == 3 && x->shape[2] == -1);
  CHECK(strcmp(x->symbols[0], "batch") == 0 && x->symbols[1] == NULL && x->symbols[2] == NULL);
  CHECK(strcmp(signature->outputs[0]->name, "y") == 0);
  nnrp_signature_free(signature);
  OK(nnrp_signature(engine, "any_rank", "1", &signature, &error));
  CHECK(signature->inputs[0]->ndim == -1 && signature->inputs[0]->shape == NULL && signature->inputs[0]->symbols == NULL);
  nnrp_signature_free(signature);
  OK(nnrp_signature(engine, "scalar", NULL, &signature, &error));
  CHECK(signature->inputs[0]->ndim == 0);
  nnrp_signature_free(signature);
  OK(nnrp_signature(engine, "optional_initializer", NULL, &signature, &error));
  CHECK(signature->n_inputs == 2 && signature->inputs[1]->optional == 1);
  nnrp_signature_free(signature);
}

int main(int argc, char** argv) {
  models = argc > 1 ? argv[1] : ".";
  test_versions();
  test_null_is_nothing_to_end();
  test_engine_options();
  test_struct_sizes();
  NnrpEngine* engine = NULL;
  if (!OK(nnrp_engine_create(NULL, &engine, &error))) return report();
  test_loading(engine);
  test_a_described_model_is_loaded_under_the_names_of_its_description(engine);
  static const char* loaded[] = {"double", "dynamic", "any_rank", "scalar", "optional_initializer"};
  for (size_t i = 0; i < sizeof loaded / sizeof *loaded; i++) {
    if (!OK(load(engine, loaded[i], NULL, loaded[i], NULL))) return report();
  }
  test_telling(engine);
  test_signatures(engine);
  nnrp_engine_free(engine);
  return report();
}
