/* What the C tests share: one error, counted claims, and the engine's models. */
#ifndef CHECK_H_
#define CHECK_H_

#include "nnrp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char* models; /* the folder that make_models.py wrote */
static int passed, failed;
static NnrpError error = NNRP_ERROR_INIT;

#define CHECK(claim) check(claim, #claim, __FILE__, __LINE__)
#define OK(call) expect(call, NNRP_OK, NULL, #call, __FILE__, __LINE__)
#define FAILS(call, code, reason) expect(call, code, reason, #call, __FILE__, __LINE__)

static void check(int holds, const char* claim, const char* file, int line) {
  if (holds) passed++;
  else failed++, fprintf(stderr, "%s:%d: %s\n", file, line, claim);
}

/* The status, the error's code and reason agree; errors say something. */
static int expect(NnrpStatus got, NnrpStatus code, const char* reason, const char* call, const char* file, int line) {
  const char* said = error.reason == NULL ? "(none)" : error.reason;
  int right = got == code && error.code == code && (reason == NULL ? error.reason == NULL : strcmp(said, reason) == 0);
  if (right && code != NNRP_OK) right = error.message[0] != '\0' && error.details_json[0] == '{';
  if (!right) fprintf(stderr, "got %s: %s: %s\n", nnrp_status_name(got), said, error.message == NULL ? "" : error.message);
  check(right, call, file, line);
  return right;
}

static NnrpStatus load(NnrpEngine* engine, const char* name, const char* version, const char* file, const char* options) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s.onnx", models, file);
  NnrpModelSpec spec = {.struct_size = sizeof spec, .name = name, .version = version, .path = path, .options_json = options};
  return nnrp_load(engine, &spec, &error);
}

static int report(void) {
  nnrp_error_clear(&error);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}

#endif
