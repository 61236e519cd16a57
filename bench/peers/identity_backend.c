/* The smallest back end that Triton Inference Server can load: its output "output" is each request's first input.
 *
 * With it a measurement sees Triton's own front ends, queue and response path, and nothing else. It declares the few
 * functions of Triton's back-end interface that it calls, so that nothing but a C compiler is needed. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

typedef void Error, Instance, Request, Response, Input, Output;

enum { RESPONSE_COMPLETE_FINAL = 1, REQUEST_RELEASE_ALL = 1 };

extern Error* TRITONBACKEND_RequestInputByIndex(Request*, uint32_t index, Input**);
extern Error* TRITONBACKEND_InputProperties(Input*, const char** name, int* datatype, const int64_t** shape,
                                            uint32_t* rank, uint64_t* byte_size, uint32_t* buffer_count);
extern Error* TRITONBACKEND_InputBuffer(Input*, uint32_t index, const void** buffer, uint64_t* byte_size,
                                        int* memory_type, int64_t* memory_id);
extern Error* TRITONBACKEND_ResponseNew(Response**, Request*);
extern Error* TRITONBACKEND_ResponseOutput(Response*, Output**, const char* name, int datatype, const int64_t* shape,
                                           uint32_t rank);
extern Error* TRITONBACKEND_OutputBuffer(Output*, void** buffer, uint64_t byte_size, int* memory_type,
                                         int64_t* memory_id);
extern Error* TRITONBACKEND_ResponseSend(Response*, uint32_t flags, Error*);
extern Error* TRITONBACKEND_RequestRelease(Request*, uint32_t flags);
extern Error* TRITONBACKEND_ModelInstanceReportStatistics(Instance*, Request*, bool success, uint64_t start_ns,
                                                          uint64_t compute_start_ns, uint64_t compute_end_ns,
                                                          uint64_t end_ns);
extern void TRITONSERVER_ErrorDelete(Error*);

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static Error* copy_input(Input* input, uint32_t buffer_count, char* to) {
  for (uint32_t i = 0; i < buffer_count; i++) {
    const void* part;
    uint64_t part_byte_size;
    int memory_type = 0;
    int64_t memory_id = 0;
    Error* error = TRITONBACKEND_InputBuffer(input, i, &part, &part_byte_size, &memory_type, &memory_id);
    if (error) return error;
    memcpy(to, part, part_byte_size);
    to += part_byte_size;
  }
  return NULL;
}

static Error* answer(Request* request, Response* response) {
  Input* input;
  Error* error = TRITONBACKEND_RequestInputByIndex(request, 0, &input);
  if (error) return error;

  const char* name;
  int datatype;
  const int64_t* shape;
  uint32_t rank, buffer_count;
  uint64_t byte_size;
  error = TRITONBACKEND_InputProperties(input, &name, &datatype, &shape, &rank, &byte_size, &buffer_count);
  if (error) return error;

  Output* output;
  error = TRITONBACKEND_ResponseOutput(response, &output, "output", datatype, shape, rank);
  if (error) return error;

  void* to;
  int memory_type = 0;
  int64_t memory_id = 0;
  error = TRITONBACKEND_OutputBuffer(output, &to, byte_size, &memory_type, &memory_id);
  if (error) return error;
  return copy_input(input, buffer_count, to);
}

Error* TRITONBACKEND_ModelInstanceExecute(Instance* instance, Request** requests, const uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    uint64_t start_ns = now_ns();
    Response* response;
    Error* error = TRITONBACKEND_ResponseNew(&response, requests[i]);
    if (!error) {
      error = answer(requests[i], response);
      TRITONBACKEND_ResponseSend(response, RESPONSE_COMPLETE_FINAL, error);
    }
    uint64_t end_ns = now_ns();
    TRITONBACKEND_ModelInstanceReportStatistics(instance, requests[i], !error, start_ns, start_ns, end_ns, end_ns);
    if (error) TRITONSERVER_ErrorDelete(error);
    TRITONBACKEND_RequestRelease(requests[i], REQUEST_RELEASE_ALL);
  }
  return NULL;
}
