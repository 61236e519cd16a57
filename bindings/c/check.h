/* What the C tests share: one error, counted claims, and the engine's models. */
#ifndef CHECK_H_
#define CHECK_H_

#include "nnrp.h"

#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

static inline NnrpStatus load(NnrpEngine* engine, const char* name, const char* version, const char* file, const char* options) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s.onnx", models, file);
  NnrpModelSpec spec = {.struct_size = sizeof spec, .name = name, .version = version, .path = path, .options_json = options};
  return nnrp_load(engine, &spec, &error);
}

static char model_path[1024];

/* A file beside the models, with that content. */
static inline const char* file(const char* name, const char* content) {
  snprintf(model_path, sizeof model_path, "%s/%s", models, name);
  FILE* out = fopen(model_path, "wb");
  if (out == NULL || fputs(content, out) < 0 || fclose(out) != 0) exit(2);
  return model_path;
}

#if defined(__SANITIZE_ADDRESS__)
#define FOLDER "plugins_asan"
#else
#define FOLDER "plugins"
#endif

/* An engine that has the sample, the frozen runtime and the bad one; NULL when it cannot be made, which is a failure. */
static inline NnrpEngine* engine_with_plugins(void) {
  static const char* format = "{\"runtimes\": {\"plugins\": [\"%s/" FOLDER "/libruntime_sample.so\", \"%s/" FOLDER "/libruntime_v1_0.so\", \"%s/" FOLDER "/libbad.so\"]}}";
  char settings[4096];
  NnrpEngine* engine = NULL;
  NnrpEngineOptions options = {.struct_size = sizeof options, .settings_json = settings};
  snprintf(settings, sizeof settings, format, models, models, models);
  OK(nnrp_engine_create(&options, &engine, &error));
  return engine;
}

/* How many of the engine's own threads there are; they are called nnrp… */
static int engine_threads(void) {
  char path[300], name[16];
  int threads = 0;
  DIR* tasks = opendir("/proc/self/task");
  for (struct dirent* task; tasks != NULL && (task = readdir(tasks)) != NULL;) {
    snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
    FILE* file = fopen(path, "r");
    if (file == NULL) continue;
    if (fgets(name, sizeof name, file) != NULL && strncmp(name, "nnrp", 4) == 0) threads++;
    fclose(file);
  }
  if (tasks != NULL) closedir(tasks);
  return threads;
}

/* Waits for the engine's threads, 10 s at most: one that ends while LeakSanitizer looks through its memory ends the program. */
static void settle(void) {
  const time_t end = time(NULL) + 10;
  while (engine_threads() > 0 && time(NULL) < end) sched_yield();
}

static int report(void) {
  nnrp_error_clear(&error);
  settle();
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}

#endif
