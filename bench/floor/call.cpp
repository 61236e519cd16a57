// The C call's floor: ONNX Runtime's `Run` timed in a loop, for bench/inproc.py, which opens this library with ctypes.
#include <time.h>

#include "ort.hpp"

namespace {

uint64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

extern "C" {

/// Loads a model. It is never unloaded: the measuring process ends soon.
void* floor_open(const char* library, const char* path) {
  static const ort::Api api = ort::open(library);
  return new ort::Model(api, path);
}

/// Times `calls` calls, floats to floats: input made, run, input released, output's data taken, output released.
///
///  spent_ns   `calls` slots.  // out
///  returns    whether every output equals the input's first element (the models are identities)
bool floor_time(void* opened, float* input, const int64_t* shape, size_t rank, uint64_t* spent_ns, size_t calls) {
  const ort::Model& model = *static_cast<ort::Model*>(opened);
  bool right = true;
  for (size_t i = 0; i < calls; i++) {
    uint64_t start_ns = now_ns();
    ort::Value* output = model.run(input, shape, rank);
    right &= model.data(output)[0] == input[0];
    model.release(output);
    spent_ns[i] = now_ns() - start_ns;
  }
  return right;
}
}
