// The few entries of ONNX Runtime's C table that the floors call.
//
// pip's wheel carries the library but no header. The table (`OrtApi`) is append-only, so an entry's index never
// changes; these stand in version 1 already.
#pragma once
#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <type_traits>

namespace ort {

struct Status;
struct Env;
struct SessionOptions;
struct Session;
struct RunOptions;
struct MemoryInfo;
struct Value;
struct TensorInfo;

constexpr int kFloat = 1, kLogError = 3, kArenaAllocator = 1, kDefaultMemory = 0;
constexpr uint32_t kApiVersion = 16;

struct Api {
  const char* (*get_error_message)(const Status*);
  Status* (*create_env)(int log_level, const char* log_id, Env**);
  Status* (*create_session)(const Env*, const char* path, const SessionOptions*, Session**);
  Status* (*run)(Session*, const RunOptions*, const char* const* input_names, const Value* const* inputs,
                 size_t input_count, const char* const* output_names, size_t output_count, Value** outputs);
  Status* (*create_session_options)(SessionOptions**);
  Status* (*set_intra_op_num_threads)(SessionOptions*, int);
  Status* (*set_inter_op_num_threads)(SessionOptions*, int);
  Status* (*create_tensor_with_data)(const MemoryInfo*, void* data, size_t byte_size, const int64_t* shape, size_t rank,
                                     int datatype, Value**);
  Status* (*get_tensor_data)(Value*, void**);
  Status* (*get_element_count)(const TensorInfo*, size_t*);
  Status* (*get_tensor_info)(const Value*, TensorInfo**);
  Status* (*create_cpu_memory_info)(int allocator, int memory, MemoryInfo**);
  void (*release_value)(Value*);
  void (*release_tensor_info)(TensorInfo*);
};

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "floor: %s\n", what);
  std::exit(1);
}

/// Opens the library and reads the table. Ends the process with a message when it cannot.
inline Api open(const char* library) {
  struct ApiBase {
    void* const* (*get_api)(uint32_t version);
    const char* (*get_version)();
  };
  void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!handle) fail(dlerror());
  auto get_base = reinterpret_cast<const ApiBase* (*)()>(dlsym(handle, "OrtGetApiBase"));
  if (!get_base) fail(dlerror());
  void* const* table = get_base()->get_api(kApiVersion);
  if (!table) fail("this ONNX Runtime is older than C table version 16");

  Api api;
  auto entry = [table](size_t index, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(table[index]);
  };
  entry(2, api.get_error_message);
  entry(3, api.create_env);
  entry(7, api.create_session);
  entry(9, api.run);
  entry(10, api.create_session_options);
  entry(24, api.set_intra_op_num_threads);
  entry(25, api.set_inter_op_num_threads);
  entry(49, api.create_tensor_with_data);
  entry(51, api.get_tensor_data);
  entry(64, api.get_element_count);
  entry(65, api.get_tensor_info);
  entry(69, api.create_cpu_memory_info);
  entry(96, api.release_value);
  entry(99, api.release_tensor_info);
  return api;
}

/// One model, FP32 in and out, on the calling thread.
class Model {
 public:
  Model(const Api& api, const char* path) : api_(&api) {
    SessionOptions* options;
    check(api.create_session_options(&options));
    check(api.set_intra_op_num_threads(options, 1));
    check(api.set_inter_op_num_threads(options, 1));
    check(api.create_session(env(api), path, options, &session_));
    check(api.create_cpu_memory_info(kArenaAllocator, kDefaultMemory, &memory_));
  }

  /// Runs the model. The output is allocated by ONNX Runtime and belongs to the caller, who ends it with `release`.
  Value* run(float* input, const int64_t* shape, size_t rank) const {
    size_t byte_size = sizeof(float);
    for (size_t i = 0; i < rank; i++) byte_size *= static_cast<size_t>(shape[i]);
    Value* in;
    check(api_->create_tensor_with_data(memory_, input, byte_size, shape, rank, kFloat, &in));
    const char* input_name = "input";
    const char* output_name = "output";
    Value* out = nullptr;
    check(api_->run(session_, nullptr, &input_name, &in, 1, &output_name, 1, &out));
    api_->release_value(in);
    return out;
  }

  float* data(Value* value) const {
    void* data;
    check(api_->get_tensor_data(value, &data));
    return static_cast<float*>(data);
  }

  size_t element_count(const Value* value) const {
    TensorInfo* info;
    size_t count;
    check(api_->get_tensor_info(value, &info));
    check(api_->get_element_count(info, &count));
    api_->release_tensor_info(info);
    return count;
  }

  void release(Value* value) const { api_->release_value(value); }

 private:
  static Env* env(const Api& api) {
    static Env* only = nullptr;
    if (!only && api.create_env(kLogError, "floor", &only)) fail("no ONNX Runtime environment");
    return only;
  }

  void check(const Status* status) const {
    if (status) fail(api_->get_error_message(status));
  }

  const Api* api_;
  Session* session_;
  MemoryInfo* memory_;
};

}  // namespace ort
